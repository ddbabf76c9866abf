//! Images for the containers that tests start: what the engine has or the farm shares. No registry is asked, since a reference
//! of a test's choosing would be a way out.

use tokio::sync::mpsc;

use super::{ImageError, Images};

impl Images {
    /// Has the image in the engine, under its own name.
    pub(super) async fn present_or_shared(&self, reference: &str) -> Result<(), ImageError> {
        let _turn = self.locks.turn(&format!("reference {reference}")).await;
        if self.engine.inspect_image(reference).await?.is_some() {
            return Ok(());
        }
        let mut tried = vec!["this worker's engine does not have it".to_owned()];
        let mut transient = false;
        match self.shelf.find(reference).await {
            Ok(Some(shared)) => {
                let (notices, _) = mpsc::channel(1);
                let image = self.fetched_from_farm(reference, &shared, &notices).await?;
                // One that is shared under several names was loaded with one of them.
                if self.engine.inspect_image(reference).await?.is_none() {
                    self.engine.tag_image(&image.id, reference).await?;
                }
                return Ok(());
            }
            Ok(None) => tried.push("the farm does not share it".to_owned()),
            Err(error) => {
                transient = true;
                tried.push(format!("the farm cannot be asked: {error}"));
            }
        }
        Err(ImageError::NotHad { reference: reference.to_owned(), tried, transient })
    }
}
