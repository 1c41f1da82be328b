//! One file per request. Each has
//! `pub(crate) async fn handle(broker: &Broker, context: &RequestContext, request: XRequest) -> XResponse`,
//! a line in [`crate::wire::api::SERVED`] and an arm in [`super::dispatch`].

pub(super) mod api_versions;
pub(super) mod fetch;
mod fetch_read;
pub(super) mod list_offsets;
pub(super) mod offset_for_leader_epoch;
pub(super) mod produce;
mod produce_errors;
