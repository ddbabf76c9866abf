package stock

import "testing"

func TestSells(t *testing.T) {}
