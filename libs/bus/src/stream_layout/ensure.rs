//! Creating the streams and buckets of a fleet, and comparing existing ones and the fleet's constants with
//! the configuration.

use std::time::Duration;

use async_nats::jetstream::context::CreateStreamErrorKind;
use async_nats::jetstream::stream::{Config, Info, StorageType};
use async_nats::jetstream::{Context, ErrorCode, kv, object_store};
use bytes::Bytes;
use nixfleet_proto::LAYOUT_VERSION;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::desired_streams;
use super::reconcile::{Change, reconcile};
use crate::Bus;
use crate::bus::backoff::pauses;
use crate::message::StreamIdentity;
use crate::reader::leader_reads::{ReadFailure, stream_info};
use crate::stream_layout::sequence_floors::SequenceFloors;

const LAYOUT_KEY: &str = "layout";
/// How long one step is repeated while the server starts or elects a leader.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why the layout cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum LayoutError {
    #[error(
        "this fleet has layout {stored_version} with {stored_partitions} partitions, this service \
         is configured for layout {version} with {partitions}: set bus.partitions to the fleet's \
         value, or choose another bus.prefix for another fleet"
    )]
    Mismatch {
        stored_version: u32,
        stored_partitions: u16,
        version: u32,
        partitions: u16,
    },
    #[error("stream {stream} cannot be used: {reason}")]
    Conflict { stream: String, reason: String },
    #[error(
        "stream {stream} ends at sequence {last}, but {floor} was already applied: the log was \
         lost or restored; empty the store of NATS, so that its streams are created above that"
    )]
    Regressed {
        stream: String,
        last: u64,
        floor: u64,
    },
    #[error("the fleet's layout record is malformed")]
    Malformed(#[source] serde_json::Error),
    #[error("cannot set up {what}: {reason}")]
    Unavailable { what: String, reason: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutRecord {
    version: u32,
    partitions: u16,
}

impl Bus {
    /// Creates missing streams, widens limits, and rejects a stream that does not fit. Several services may
    /// do this at the same time.
    ///
    /// `floors` are the positions that this service knows. A service without positions passes empty floors,
    /// and only where another service has created the streams before.
    pub async fn ensure_layout(&self, floors: &SequenceFloors) -> Result<(), LayoutError> {
        let context = &self.connections().consume_js;
        let names = self.names();
        let bucket = |bucket| kv::Config {
            bucket,
            history: 1,
            storage: StorageType::File,
            num_replicas: self.config().replicas,
            ..kv::Config::default()
        };
        ensure_bucket(context, bucket(names.meta_bucket())).await?;
        // The constants come first: nothing is created for a fleet with another number of partitions.
        self.check_constants(context).await?;
        let leases = kv::Config {
            limit_markers: Some(Duration::from_secs(60)),
            ..bucket(names.lease_bucket())
        };
        ensure_bucket(context, leases).await?;
        for bucket in [names.manifest_bucket(), names.checkpoint_bucket()] {
            self.ensure_objects(context, bucket).await?;
        }
        for desired in desired_streams::streams(self.config(), names) {
            let stream = desired.name.clone();
            let identity = ensure_stream(context, desired, floors).await?;
            self.known_streams()
                .adopt(&stream, identity, floors.of(&stream));
        }
        Ok(())
    }

    /// Writes the constants unless they exist, and compares them.
    async fn check_constants(&self, context: &Context) -> Result<(), LayoutError> {
        let bucket = self.names().meta_bucket();
        let record = LayoutRecord {
            version: LAYOUT_VERSION,
            partitions: self.partitions(),
        };
        let bytes = Bytes::from(serde_json::to_vec(&record).map_err(LayoutError::Malformed)?);
        let stored = retry_step(&bucket, || async {
            let store = context.get_key_value(&bucket).await.map_err(retry)?;
            match store.create(LAYOUT_KEY, bytes.clone()).await {
                Ok(_) => Ok(bytes.clone()),
                Err(error) if error.kind() == kv::CreateErrorKind::AlreadyExists => {
                    let value = store.get(LAYOUT_KEY).await.map_err(retry)?;
                    value.ok_or_else(|| Step::Retry("the record is not visible yet".to_owned()))
                }
                Err(error) => Err(retry(error)),
            }
        })
        .await?;
        let stored: LayoutRecord =
            serde_json::from_slice(&stored).map_err(LayoutError::Malformed)?;
        if stored == record {
            return Ok(());
        }
        Err(LayoutError::Mismatch {
            stored_version: stored.version,
            stored_partitions: stored.partitions,
            version: record.version,
            partitions: record.partitions,
        })
    }

    async fn ensure_objects(&self, context: &Context, bucket: String) -> Result<(), LayoutError> {
        retry_step(&bucket, || async {
            let config = object_store::Config {
                bucket: bucket.clone(),
                storage: StorageType::File,
                num_replicas: self.config().replicas,
                ..object_store::Config::default()
            };
            match context.create_object_store(config).await {
                Ok(_) => Ok(()),
                // Another service, or another configuration, has created it.
                Err(error) => match context.get_object_store(&bucket).await {
                    Ok(_) => Ok(()),
                    Err(_) => Err(retry(error)),
                },
            }
        })
        .await
    }
}

async fn ensure_bucket(context: &Context, config: kv::Config) -> Result<(), LayoutError> {
    let bucket = config.bucket.clone();
    retry_step(&bucket, || async {
        match context.create_key_value(config.clone()).await {
            Ok(_) => Ok(()),
            // Another service, or another configuration, has created it.
            Err(error) => match context.get_key_value(&bucket).await {
                Ok(_) => Ok(()),
                Err(_) => Err(retry(error)),
            },
        }
    })
    .await
}

/// Creates one stream above its floor, or adopts the existing one.
async fn ensure_stream(
    context: &Context,
    desired: Config,
    floors: &SequenceFloors,
) -> Result<StreamIdentity, LayoutError> {
    let stream = desired.name.clone();
    let floor = floors.of(&stream);
    let info = retry_step(&stream, || async {
        match stream_info(context, &stream).await {
            Ok(info) => return Ok(info),
            Err(ReadFailure::Retry(reason)) => return Err(Step::Retry(reason)),
            Err(ReadFailure::Missing) => {}
        }
        let mut config = desired.clone();
        config.first_sequence = floors.first_sequence(&stream).or(config.first_sequence);
        match context.create_stream(config).await {
            Ok(created) => {
                tracing::info!(stream, floor, "stream created");
                Ok(created.cached_info().clone())
            }
            Err(error) => {
                match error.kind() {
                    // Another service created it first; the next attempt adopts its stream.
                    CreateStreamErrorKind::JetStream(answer)
                        if answer.error_code() != ErrorCode::STREAM_NAME_EXIST =>
                    {
                        Err(refused(&answer))
                    }
                    CreateStreamErrorKind::JetStream(_)
                    | CreateStreamErrorKind::EmptyStreamName
                    | CreateStreamErrorKind::InvalidStreamName
                    | CreateStreamErrorKind::DomainAndExternalSet
                    | CreateStreamErrorKind::JetStreamUnavailable
                    | CreateStreamErrorKind::TimedOut
                    | CreateStreamErrorKind::Response
                    | CreateStreamErrorKind::NotFound
                    | CreateStreamErrorKind::ResponseParse => Err(retry(error)),
                }
            }
        }
    })
    .await?;
    adopt(context, &info, &desired).await?;
    let last = info.state.last_sequence;
    if last < floor {
        return Err(LayoutError::Regressed {
            stream,
            last,
            floor,
        });
    }
    Ok(StreamIdentity::new(&info))
}

/// Errors that a retry does not change, except while a server is short of peers.
fn refused(answer: &async_nats::jetstream::Error) -> Step {
    match answer.error_code() {
        ErrorCode::CLUSTER_NO_PEERS
        | ErrorCode::CLUSTER_NOT_AVAILABLE
        | ErrorCode::CLUSTER_NOT_LEADER
        | ErrorCode::CLUSTER_NOT_ACTIVE => Step::Retry(answer.to_string()),
        _ => Step::Stop(answer.to_string()),
    }
}

async fn adopt(context: &Context, info: &Info, desired: &Config) -> Result<(), LayoutError> {
    let stream = &desired.name;
    let (change, kept) =
        reconcile(&info.config, desired).map_err(|reason| LayoutError::Conflict {
            stream: stream.clone(),
            reason,
        })?;
    for text in kept {
        tracing::warn!(%stream, "a limit of a stream with data is not lowered: {text}");
    }
    let Change::Update(update) = change else {
        return Ok(());
    };
    retry_step(stream, || async {
        context.update_stream(&*update).await.map_err(retry)
    })
    .await?;
    tracing::info!(%stream, "stream limits widened");
    Ok(())
}

enum Step {
    Retry(String),
    Stop(String),
}

fn retry(error: impl std::error::Error) -> Step {
    Step::Retry(with_causes(&error))
}

pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

async fn retry_step<T, F>(what: &str, mut step: impl FnMut() -> F) -> Result<T, LayoutError>
where
    F: Future<Output = Result<T, Step>>,
{
    let deadline = Instant::now() + TIMEOUT;
    let mut pauses = pauses();
    loop {
        let (reason, over) = match step().await {
            Ok(value) => return Ok(value),
            Err(Step::Retry(reason)) => (reason, Instant::now() >= deadline),
            Err(Step::Stop(reason)) => (reason, true),
        };
        if over {
            let what = what.to_owned();
            return Err(LayoutError::Unavailable { what, reason });
        }
        tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(1))).await;
    }
}
