# Not built yet: where this was written there is no engine for it.
#
#     docker build -t acb-fuse .
#     docker run --rm -v "$PWD:/models" acb-fuse model.onnx deploy.onnx
FROM rust:1.91-bookworm AS build
WORKDIR /source
COPY Cargo.toml Cargo.lock build.rs LICENSE-APACHE LICENSE-MIT README.md ./
COPY proto proto
COPY src src
# Its manifest names it.
COPY benches/stages.rs benches/stages.rs
COPY .github/third_party.py .github/third_party.py
RUN cargo install --locked --path . --root /installed && python3 .github/third_party.py /notices

FROM debian:bookworm-slim
COPY --from=build /installed/bin/acb-fuse /usr/local/bin/acb-fuse
COPY --from=build /notices /usr/share/doc/acb-fuse/
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/acb-fuse/
# Files that it writes belong to whoever is named with `docker run --user`.
USER nobody
WORKDIR /models
ENTRYPOINT ["acb-fuse"]
