// Every way in which a test of Go ends.
package shop

import (
	"fmt"
	"testing"
)

func TestSells(t *testing.T) { fmt.Println("hello from TestSells") }

func TestFails(t *testing.T) {
	t.Log("about to fail")
	t.Errorf("stock is %d, not %d", 1, 2)
}

func TestSkips(t *testing.T) { t.Skip("not now") }

func TestTable(t *testing.T) {
	for _, name := range []string{"a b", "it's", "x/y"} {
		t.Run(name, func(t *testing.T) {
			if name == "it's" {
				t.Fatal("bad " + name)
			}
		})
	}
}

func TestParallelA(t *testing.T) { t.Parallel() }

func TestNoNewline(t *testing.T) { fmt.Print("no newline at the end") }

func ExampleHello() {
	fmt.Println("hi")
	// Output: hi
}

func BenchmarkX(b *testing.B) {}
