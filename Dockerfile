# cdpipe with everything it needs, for Kubernetes or any container host:
#   docker build --target cpu -t cdpipe:cpu .       also for int8, the fastest without a GPU
#   docker build --target cuda -t cdpipe:cuda .     needs the NVIDIA container toolkit on the host
# torch brings its own CUDA libraries, so both start from the same small image. Ray's nodes need more shared memory
# than Docker's 64 MB: docker run --shm-size=2g.
FROM python:3.12-slim-bookworm AS base
# wget is what KubeRay's probes call; libexpat is what rasterio's wheels leave to the system
# Debian keeps no old versions to pin, and a stable release changes none of these.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libexpat1 wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 cdpipe
WORKDIR /opt/cdpipe
COPY pyproject.toml constraints.txt LICENSE README.md ./
COPY cdpipe cdpipe
COPY jobs jobs
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 RAY_USAGE_STATS_ENABLED=0 RAY_task_oom_retries=3

FROM base AS cuda
RUN pip install -c constraints.txt ".[cloud]"
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /home/cdpipe
ENTRYPOINT ["cdpipe"]
CMD ["--help"]

FROM base AS cpu
RUN pip install -c constraints.txt ".[cloud,openvino]"
USER 1000
WORKDIR /home/cdpipe
ENTRYPOINT ["cdpipe"]
CMD ["--help"]
