//! The project's part of `andon doctor`: are andon.toml and the compose file, as they are in the working copy, valid?

use super::Finding;
use std::path::Path;
pub(super) async fn check(_repo: &Path) -> Vec<Finding> {
    Vec::new()
}
