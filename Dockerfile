# The pipeline and the main tests in a clean Debian: `docker build .` succeeds if both do.
FROM python:3.13-slim-trixie
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends curl git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /pipeline
COPY . .
RUN make repro
RUN make test
CMD ["bash"]
