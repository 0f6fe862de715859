//! Where each object is: four redb tables.
//!
//! `objects` maps an id to its place, `volumes` says of each volume how many of its bytes are
//! alive and where its committed end is, `worth` what an object is worth and whether it is kept
//! when nothing needs it, `meta` holds the format, the sum of all bytes and the water level.
//! It deliberately knows nothing of files: it says what became dead, the store deletes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use super::worth::{Price, Spare};
use super::{StoreError, Usage};
use crate::database::Database;
use crate::id::ContentId;

/// Kind (0 large, 1 small), volume, offset, length.
type Row = (u8, u32, u32, u32);

const OBJECTS: TableDefinition<'static, &[u8; 32], Row> = TableDefinition::new("objects");
/// Live bytes and committed end.
const VOLUMES: TableDefinition<'static, u32, (u64, u64)> = TableDefinition::new("volumes");
/// Worth, and whether it stays when nothing needs it. An older version knows nothing of it, so an
/// object may have no row.
const WORTH: TableDefinition<'static, &[u8; 32], (u64, bool)> = TableDefinition::new("worth");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

const FORMAT: u64 = 1;
/// Hosts must stay small.
const CACHE: usize = 4 << 20;

pub(super) struct Index {
    database: Database,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Large { len: u32 },
    Small { volume: u32, offset: u32, len: u32 },
}

/// What nothing points to any more.
#[derive(Default)]
pub(super) struct Removed {
    pub(super) large: Vec<ContentId>,
    pub(super) volumes: Vec<u32>,
    /// Where they were in volumes that go on.
    pub(super) holes: Vec<(u32, u32, u32)>,
}

impl Place {
    pub(super) fn len(self) -> u32 {
        match self {
            Place::Large { len } | Place::Small { len, .. } => len,
        }
    }

    fn row(self) -> Row {
        match self {
            Place::Large { len } => (0, 0, 0, len),
            Place::Small { volume, offset, len } => (1, volume, offset, len),
        }
    }

    fn of((kind, volume, offset, len): Row) -> Place {
        match kind {
            0 => Place::Large { len },
            _ => Place::Small { volume, offset, len },
        }
    }
}

impl Index {
    pub(super) fn open(path: &Path) -> Result<Index, StoreError> {
        let index = Index { database: Database::open(path, CACHE).map_err(failed("open"))? };
        match index.format()? {
            Some(FORMAT) => Ok(index),
            Some(found) => Err(StoreError::Format { found }),
            None => {
                index.change("open", |tables| {
                    tables.meta.insert("format", FORMAT)?;
                    Ok(())
                })?;
                Ok(index)
            }
        }
    }

    /// What an older process has written here, if any has. A full disk is no hindrance.
    fn format(&self) -> Result<Option<u64>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let transaction = self.database.current()?.begin_read()?;
            let table = match transaction.open_table(META) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            Ok(table.get("format")?.map(|value| value.value()))
        };
        read().map_err(failed("read"))
    }

    pub(super) fn find(&self, id: &ContentId) -> Result<Option<Place>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let table = self.database.current()?.begin_read()?.open_table(OBJECTS)?;
            Ok(table.get(&id.0)?.map(|row| Place::of(row.value())))
        };
        read().map_err(failed("read"))
    }

    /// Those of these that are not here.
    pub(super) fn absent(&self, ids: &[ContentId]) -> Result<BTreeSet<ContentId>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let table = self.database.current()?.begin_read()?.open_table(OBJECTS)?;
            let mut absent = BTreeSet::new();
            for id in ids {
                if table.get(&id.0)?.is_none() {
                    absent.insert(*id);
                }
            }
            Ok(absent)
        };
        read().map_err(failed("read"))
    }

    /// Every object that is here.
    pub(super) fn ids(&self) -> Result<Vec<ContentId>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let table = self.database.current()?.begin_read()?.open_table(OBJECTS)?;
            table.iter()?.map(|row| Ok(ContentId(*row?.0.value()))).collect()
        };
        read().map_err(failed("read"))
    }

    /// Committed end of each volume.
    pub(super) fn volumes(&self) -> Result<BTreeMap<u32, u64>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let table = self.database.current()?.begin_read()?.open_table(VOLUMES)?;
            let mut ends = BTreeMap::new();
            for row in table.iter()? {
                let (number, value) = row?;
                ends.insert(number.value(), value.value().1);
            }
            Ok(ends)
        };
        read().map_err(failed("read"))
    }

    pub(super) fn usage(&self) -> Result<Usage, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let transaction = self.database.current()?.begin_read()?;
            let objects = transaction.open_table(OBJECTS)?.len()?;
            let bytes = transaction.open_table(META)?.get("bytes")?;
            Ok(Usage { objects, bytes: bytes.map_or(0, |bytes| bytes.value()) })
        };
        read().map_err(failed("read"))
    }

    /// Adds objects whose bytes are on disk. None of them may be there already.
    pub(super) fn add(
        &self,
        places: &[(ContentId, Place)],
        price: Price,
        keeps: &dyn Fn(&ContentId) -> bool,
    ) -> Result<(), StoreError> {
        self.change("write", |tables| {
            let mut grown: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
            let mut bytes = 0;
            let level = tables.level()?;
            for (id, place) in places {
                tables.objects.insert(&id.0, place.row())?;
                tables.worth.insert(&id.0, (price.worth(level, place.len()), keeps(id)))?;
                bytes += u64::from(place.len());
                if let Place::Small { volume, offset, len } = *place {
                    let (live, end) = grown.entry(volume).or_default();
                    *live += u64::from(len);
                    *end = (*end).max(u64::from(offset) + u64::from(len));
                }
            }
            for (volume, (more, end)) in grown {
                let (live, old) = tables.volume(volume)?;
                tables.volumes.insert(volume, (live + more, old.max(end)))?;
            }
            let total = tables.bytes()?.saturating_add(bytes);
            tables.meta.insert("bytes", total)?;
            Ok(())
        })
    }

    /// Removes objects, and the volumes that thereby hold nothing alive.
    pub(super) fn remove(&self, ids: &[ContentId]) -> Result<Removed, StoreError> {
        self.change("write", |tables| {
            let mut removed = Removed::default();
            let mut touched = BTreeSet::new();
            let mut total = tables.bytes()?;
            for id in ids {
                let row = tables.objects.remove(&id.0)?.map(|row| row.value());
                let Some(place) = row.map(Place::of) else { continue };
                tables.worth.remove(&id.0)?;
                total = total.saturating_sub(place.len().into());
                match place {
                    Place::Large { .. } => removed.large.push(*id),
                    Place::Small { volume, offset, len } => {
                        removed.holes.push((volume, offset, len));
                        let (live, end) = tables.volume(volume)?;
                        let live = live.saturating_sub(len.into());
                        tables.volumes.insert(volume, (live, end))?;
                        touched.insert(volume);
                    }
                }
            }
            for volume in touched {
                if tables.volume(volume)?.0 == 0 {
                    tables.volumes.remove(volume)?;
                    removed.volumes.push(volume);
                }
            }
            removed.holes.retain(|(volume, ..)| !removed.volumes.contains(volume));
            tables.meta.insert("bytes", total)?;
            Ok(removed)
        })
    }

    /// These have been used.
    pub(super) fn touch(&self, ids: &BTreeSet<ContentId>, price: Price) -> Result<(), StoreError> {
        self.change("write", |tables| {
            let level = tables.level()?;
            for id in ids {
                let row = tables.objects.get(&id.0)?.map(|row| Place::of(row.value()));
                let Some(place) = row else { continue };
                let kept = tables.worth.get(&id.0)?.is_some_and(|row| row.value().1);
                tables.worth.insert(&id.0, (price.worth(level, place.len()), kept))?;
            }
            Ok(())
        })
    }

    /// What stays also when nothing needs it.
    pub(super) fn kept(&self) -> Result<BTreeSet<ContentId>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let transaction = self.database.current()?.begin_read()?;
            let mut kept = BTreeSet::new();
            let table = match transaction.open_table(WORTH) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(kept),
                table => table?,
            };
            for row in table.iter()? {
                let (id, row) = row?;
                if row.value().1 {
                    kept.insert(ContentId(*id.value()));
                }
            }
            Ok(kept)
        };
        read().map_err(failed("read"))
    }

    /// Everything but these, with what it is worth, and the water level.
    pub(super) fn spare(
        &self,
        pinned: &dyn Fn(&ContentId) -> bool,
    ) -> Result<(Vec<Spare>, u64), StoreError> {
        let read = || -> Result<_, redb::Error> {
            let transaction = self.database.current()?.begin_read()?;
            let objects = transaction.open_table(OBJECTS)?;
            let worth = match transaction.open_table(WORTH) {
                Err(redb::TableError::TableDoesNotExist(_)) => None,
                table => Some(table?),
            };
            let mut spare = Vec::new();
            for row in objects.iter()? {
                let (id, place) = row?;
                let id = ContentId(*id.value());
                if pinned(&id) {
                    continue;
                }
                let known = worth.as_ref().map(|table| table.get(&id.0)).transpose()?.flatten();
                let worth = known.map_or(0, |row| row.value().0);
                spare.push(Spare { id, len: Place::of(place.value()).len(), worth });
            }
            let level = transaction.open_table(META)?.get("level")?;
            Ok((spare, level.map_or(0, |level| level.value())))
        };
        read().map_err(failed("read"))
    }

    /// The water has risen.
    pub(super) fn rise(&self, level: u64) -> Result<(), StoreError> {
        self.change("write", |tables| {
            tables.meta.insert("level", level)?;
            Ok(())
        })
    }

    fn change<T>(
        &self,
        doing: &'static str,
        job: impl FnOnce(&mut Tables<'_>) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let write = || -> Result<T, redb::Error> {
            let mut transaction = self.database.current()?.begin_write()?;
            transaction.set_two_phase_commit(true);
            let mut tables = Tables {
                objects: transaction.open_table(OBJECTS)?,
                volumes: transaction.open_table(VOLUMES)?,
                worth: transaction.open_table(WORTH)?,
                meta: transaction.open_table(META)?,
            };
            let result = job(&mut tables)?;
            drop(tables);
            transaction.commit()?;
            Ok(result)
        };
        write().map_err(failed(doing))
    }
}

struct Tables<'a> {
    objects: redb::Table<'a, &'static [u8; 32], Row>,
    volumes: redb::Table<'a, u32, (u64, u64)>,
    worth: redb::Table<'a, &'static [u8; 32], (u64, bool)>,
    meta: redb::Table<'a, &'static str, u64>,
}

impl Tables<'_> {
    fn volume(&self, number: u32) -> Result<(u64, u64), redb::Error> {
        Ok(self.volumes.get(number)?.map_or((0, 0), |row| row.value()))
    }

    fn level(&self) -> Result<u64, redb::Error> {
        Ok(self.meta.get("level")?.map_or(0, |level| level.value()))
    }

    fn bytes(&self) -> Result<u64, redb::Error> {
        Ok(self.meta.get("bytes")?.map_or(0, |bytes| bytes.value()))
    }
}

fn failed<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> StoreError {
    move |err| StoreError::Index { doing, source: Box::new(err.into()) }
}
