# One image for all services; the command says which one runs.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --release \
    --package nixfleet-ingest --package nixfleet-console --package nixfleet-reducer \
    --package nixfleet-planner --package nixfleet-applier --package nixfleet-eventlog --package nixfleet-cli

FROM debian:bookworm-slim
# curl is for the health checks.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home nixfleet
COPY --from=build \
    /src/target/release/nixfleet \
    /src/target/release/nixfleet-ingest \
    /src/target/release/nixfleet-console \
    /src/target/release/nixfleet-reducer \
    /src/target/release/nixfleet-planner \
    /src/target/release/nixfleet-applier \
    /src/target/release/nixfleet-eventlog \
    /usr/local/bin/
USER nixfleet
