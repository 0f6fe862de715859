//! The controller's content store, as operators ask about it.

use axum::Json;
use axum::extract::State;

use crate::api::{Answer, Api};
use crate::clock::now_ms;
use crate::fault::Failure;
use crate::orders::blocking;
use crate::types::{StoreCheck, StoreInfo, StoreSweep};

/// `GET /v1/store`
pub(crate) async fn usage(State(api): State<Api>) -> Answer<StoreInfo> {
    blocking(move || {
        let usage = api.packer.store.usage().map_err(|error| Failure::content(&error))?;
        let (objects, bytes, store) = (usage.objects, usage.bytes, &api.packer.store);
        let needed = api.cleaner.needed();
        let needed = needed.map_err(|error| Failure::internal(relay::chain(&error)))?;
        let spare = store.spare(&needed).map_err(|error| Failure::content(&error))?;
        let max = Some(store.bounds().max).filter(|max| *max < u64::MAX);
        Ok(StoreInfo { objects, bytes, free: store.free(), max, spare: Some(spare) })
    })
    .await
    .map(Json)
}

/// `POST /v1/store/check`
pub(crate) async fn check(State(api): State<Api>) -> Answer<StoreCheck> {
    blocking(move || {
        let checked = api.packer.store.check().map_err(|error| Failure::content(&error))?;
        let damaged = checked.damaged.iter().map(ToString::to_string).collect();
        Ok(StoreCheck { good: checked.good, bytes: checked.bytes, damaged })
    })
    .await
    .map(Json)
}

/// `POST /v1/store/gc`
pub(crate) async fn sweep(State(api): State<Api>) -> Answer<StoreSweep> {
    let Ok(turn) = api.pushes.clone().try_write_owned() else {
        let message = "a push is being made, whose content nothing names yet";
        return Err(Failure::conflict(message, "ask again when it is on its way"));
    };
    blocking(move || {
        let _turn = turn;
        let before = api.packer.store.usage().map_err(|error| Failure::content(&error))?;
        let cleaned = api.cleaner.clean(now_ms());
        cleaned.map_err(|error| Failure::internal(relay::chain(&error)))?;
        let after = api.packer.store.usage().map_err(|error| Failure::content(&error))?;
        let gone = |before: u64, after: u64| before.saturating_sub(after);
        Ok(StoreSweep {
            objects: gone(before.objects, after.objects),
            bytes: gone(before.bytes, after.bytes),
        })
    })
    .await
    .map(Json)
}
