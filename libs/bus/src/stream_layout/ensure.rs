//! Creating the streams and buckets of a fleet, which the planner does, and comparing existing ones and the
//! fleet's constants with the configuration, which every service does.

use std::time::Duration;

use async_nats::HeaderMap;
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
use crate::publish::outgoing_message::{OutgoingMessage, PublishRefusal};
use crate::reader::leader_reads::{ReadFailure, found, stream_info};
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
    #[error(
        "{what} does not exist yet: the planner creates it; start the planner, or see why it is not ready"
    )]
    Missing { what: String },
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

/// What a process does about a missing stream or a narrow limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LayoutDuty {
    /// Creates and widens; only the planner may.
    Create,
    /// Reports it.
    Compare,
}

impl Bus {
    /// Creates missing streams, widens limits, and rejects a stream that does not fit. Only the planner has the
    /// right; several planners may do this at the same time.
    ///
    /// `floors` are the positions that tables and archive cover.
    pub async fn ensure_layout(&self, floors: &SequenceFloors) -> Result<(), LayoutError> {
        self.set_up(LayoutDuty::Create, floors).await
    }

    /// Compares the streams with the configuration and with the positions that tables and archive cover.
    ///
    /// # Errors
    /// [`LayoutError::Missing`] until the planner has created them.
    pub async fn compare_layout(&self, floors: &SequenceFloors) -> Result<(), LayoutError> {
        self.set_up(LayoutDuty::Compare, floors).await
    }

    pub(super) async fn set_up(
        &self,
        duty: LayoutDuty,
        floors: &SequenceFloors,
    ) -> Result<(), LayoutError> {
        let context = &self.connections().consume_js;
        let names = self.names();
        self.ensure_bucket(duty, names.meta_bucket(), None).await?;
        // The constants come first: nothing is created for a fleet with another number of partitions.
        self.check_constants(duty).await?;
        let markers = Some(Duration::from_secs(60));
        self.ensure_bucket(duty, names.lease_bucket(), markers)
            .await?;
        for bucket in [names.manifest_bucket(), names.checkpoint_bucket()] {
            self.ensure_objects(duty, bucket).await?;
        }
        for desired in desired_streams::streams(self.config(), names) {
            let stream = desired.name.clone();
            let identity = ensure_stream(context, desired, (duty, floors)).await?;
            self.known_streams()
                .adopt(&stream, identity, floors.of(&stream));
        }
        Ok(())
    }

    /// Writes the constants unless they exist, and compares them.
    async fn check_constants(&self, duty: LayoutDuty) -> Result<(), LayoutError> {
        let context = &self.connections().consume_js;
        let bucket = self.names().meta_bucket();
        let record = LayoutRecord {
            version: LAYOUT_VERSION,
            partitions: self.partitions(),
        };
        let bytes = Bytes::from(serde_json::to_vec(&record).map_err(LayoutError::Malformed)?);
        let subject = format!("$KV.{bucket}.{LAYOUT_KEY}");
        let first = OutgoingMessage {
            subject: subject.clone(),
            headers: HeaderMap::new(),
            payload: bytes,
        };
        let first = first.fenced(0);
        let stored = retry_step(&bucket, || async {
            if duty == LayoutDuty::Create {
                match first.send(context).await {
                    Ok(_) | Err(PublishRefusal::LastSequence) => {}
                    Err(refusal) => return Err(Step::Retry(refusal.to_string())),
                }
            }
            let stream = context.get_stream_no_info(format!("KV_{bucket}")).await;
            let stream = stream.map_err(retry)?;
            let last = stream.get_last_raw_message_by_subject(&subject).await;
            match found(last) {
                Ok(Some(message)) => Ok(Some(message.payload)),
                Ok(None) if duty == LayoutDuty::Compare => Ok(None),
                Ok(None) => Err(Step::Retry("the record is not visible yet".to_owned())),
                Err(ReadFailure::Missing) => Err(Step::Retry("the bucket is missing".to_owned())),
                Err(ReadFailure::Retry(reason)) => Err(Step::Retry(reason)),
            }
        })
        .await?;
        let Some(stored) = stored else {
            return Err(LayoutError::Missing {
                what: format!("the layout record in bucket {bucket}"),
            });
        };
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

    async fn ensure_objects(&self, duty: LayoutDuty, bucket: String) -> Result<(), LayoutError> {
        let context = &self.connections().consume_js;
        if duty == LayoutDuty::Compare {
            return require(context, format!("OBJ_{bucket}")).await;
        }
        retry_step(&bucket, || async {
            let config = object_store::Config {
                bucket: bucket.clone(),
                storage: StorageType::File,
                num_replicas: self.config().replicas,
                ..object_store::Config::default()
            };
            match context.create_object_store(config).await {
                Ok(_) => Ok(()),
                // Another planner, or another configuration, has created it.
                Err(error) => match context.get_object_store(&bucket).await {
                    Ok(_) => Ok(()),
                    Err(_) => Err(retry(error)),
                },
            }
        })
        .await
    }

    async fn ensure_bucket(
        &self,
        duty: LayoutDuty,
        bucket: String,
        limit_markers: Option<Duration>,
    ) -> Result<(), LayoutError> {
        let context = &self.connections().consume_js;
        if duty == LayoutDuty::Compare {
            return require(context, format!("KV_{bucket}")).await;
        }
        let config = kv::Config {
            bucket: bucket.clone(),
            history: 1,
            storage: StorageType::File,
            num_replicas: self.config().replicas,
            limit_markers,
            ..kv::Config::default()
        };
        retry_step(&bucket, || async {
            match context.create_key_value(config.clone()).await {
                Ok(_) => Ok(()),
                // Another planner, or another configuration, has created it.
                Err(error) => match context.get_key_value(&bucket).await {
                    Ok(_) => Ok(()),
                    Err(_) => Err(retry(error)),
                },
            }
        })
        .await
    }
}

/// Requires that the stream of a bucket exists.
async fn require(context: &Context, stream: String) -> Result<(), LayoutError> {
    let info = look_up(context, &stream).await?;
    info.map(drop).ok_or(LayoutError::Missing { what: stream })
}

/// The state of a stream; `None` when there is none.
async fn look_up(context: &Context, stream: &str) -> Result<Option<Info>, LayoutError> {
    retry_step(stream, || async {
        match stream_info(context, stream).await {
            Ok(info) => Ok(Some(info)),
            Err(ReadFailure::Missing) => Ok(None),
            Err(ReadFailure::Retry(reason)) => Err(Step::Retry(reason)),
        }
    })
    .await
}

/// Creates one stream above its floor, or adopts the existing one.
async fn ensure_stream(
    context: &Context,
    desired: Config,
    (duty, floors): (LayoutDuty, &SequenceFloors),
) -> Result<StreamIdentity, LayoutError> {
    let stream = desired.name.clone();
    let floor = floors.of(&stream);
    let info = match (look_up(context, &stream).await?, duty) {
        (Some(info), _) => info,
        (None, LayoutDuty::Compare) => {
            return Err(LayoutError::Missing {
                what: format!("stream {stream}"),
            });
        }
        (None, LayoutDuty::Create) => create_stream(context, &desired, floors).await?,
    };
    adopt(context, &info, (&desired, duty)).await?;
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

/// Creates a stream above its floor; another planner may create it first.
async fn create_stream(
    context: &Context,
    desired: &Config,
    floors: &SequenceFloors,
) -> Result<Info, LayoutError> {
    let stream = &desired.name;
    let mut config = desired.clone();
    config.first_sequence = floors.first_sequence(stream).or(config.first_sequence);
    retry_step(stream, || async {
        let error = match context.create_stream(config.clone()).await {
            Ok(created) => {
                tracing::info!(stream, floor = floors.of(stream), "stream created");
                return Ok(created.cached_info().clone());
            }
            Err(error) => error,
        };
        match error.kind() {
            CreateStreamErrorKind::JetStream(answer)
                if answer.error_code() != ErrorCode::STREAM_NAME_EXIST =>
            {
                return Err(refused(&answer));
            }
            CreateStreamErrorKind::JetStream(_)
            | CreateStreamErrorKind::EmptyStreamName
            | CreateStreamErrorKind::InvalidStreamName
            | CreateStreamErrorKind::DomainAndExternalSet
            | CreateStreamErrorKind::JetStreamUnavailable
            | CreateStreamErrorKind::TimedOut
            | CreateStreamErrorKind::Response
            | CreateStreamErrorKind::NotFound
            | CreateStreamErrorKind::ResponseParse => {}
        }
        // Perhaps an earlier attempt, or another planner, has created it.
        match stream_info(context, stream).await {
            Ok(info) => Ok(info),
            Err(_) => Err(retry(error)),
        }
    })
    .await
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

async fn adopt(
    context: &Context,
    info: &Info,
    (desired, duty): (&Config, LayoutDuty),
) -> Result<(), LayoutError> {
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
    if duty == LayoutDuty::Compare {
        tracing::warn!(
            %stream,
            "its limits are narrower than in section `bus` of this service; those of the planner decide"
        );
        return Ok(());
    }
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
