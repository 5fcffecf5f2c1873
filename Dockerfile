# The image of this project: a base with Python and compilers, and `make setup`. docs/container.md says how to build and run it.
# GPU=1 takes a base with CUDA's compiler. Any other value does too, so leave GPU out for processors only.
ARG GPU
ARG BASE=${GPU:+nvidia/cuda:12.6.3-devel-ubuntu24.04}
FROM ${BASE:-debian:12-slim}
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv gcc g++ cmake make \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /criteo-dlrm

# Set-up first, from the files that it reads: it runs again when one of these changes, not with every changed source.
COPY Makefile setup.cfg setup.py pyproject.toml ./
COPY setup/ setup/
COPY criteo_prep/__init__.py criteo_prep/
COPY dlrm_tf2/__init__.py dlrm_tf2/
ARG GPU
RUN make setup GPU=${GPU} && rm -rf ~/.cache /tmp/* /var/lib/apt/lists/* /var/cache/apt/*

# Then the sources; what is left to set up is the op library. Every user can read them, whatever the umask of the clone, and
# can write new files here and in the home folder, where caches go.
COPY . .
RUN make setup \
    && find . -path ./.venv -prune -o ! -type l -exec chmod a+rX {} + \
    && useradd --uid 1000 --non-unique --create-home --shell /bin/bash user \
    && chmod 1777 . /home/user
ENV HOME=/home/user PATH=/criteo-dlrm/.venv/bin:$PATH
USER 1000:1000
CMD ["bash"]
