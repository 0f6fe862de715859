//! A file that was made, and not read from a disk.

use crate::chunk::Cutter;
use crate::{ChunkRef, ContentId, IngestError, Kind, Store};

/// Puts bytes into the store as the content of a file, cut as if they had been read from one.
pub fn ingest_bytes(bytes: &[u8], store: &Store) -> Result<Kind, IngestError> {
    let (size, mut chunks) = (bytes.len() as u64, Vec::new());
    let unread = |source| IngestError::Read { doing: "read", path: "memory".into(), source };
    let mut failed = None;
    let cut = Cutter::new().cut(bytes, size, &mut |chunk| {
        let id = ContentId::of(chunk);
        if let Err(error) = store.put(id, chunk) {
            failed = Some(error);
            return Err(std::io::Error::other("the store failed"));
        }
        let len = u32::try_from(chunk.len()).map_err(std::io::Error::other)?;
        chunks.push(ChunkRef { id, len });
        Ok(())
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    cut.map_err(unread)?;
    Ok(Kind::File { size, chunks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Patterns, ingest};

    #[test]
    fn what_is_made_is_what_would_be_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(dir.path().join("store")).expect("opens");
        let large: Vec<u8> = (0..500_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        for bytes in [&b""[..], b"one\n", &large] {
            let path = dir.path().join("file");
            std::fs::write(&path, bytes).expect("written");
            let none = Patterns::new(&[]).expect("none");
            let read = ingest(&path, &none, &store, &mut |_| ()).expect("reads");
            let made = ingest_bytes(bytes, &store).expect("kept");
            assert_eq!(made, read.manifest.entries[0].kind);
        }
    }
}
