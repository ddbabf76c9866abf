//! End-to-end tests of the farm, and the harness that they share.
