# A development container for the CPU: the environment of `make test-trl`, with the versions of constraints.txt.
#   docker build -t rvpo . && docker run --rm -it rvpo rvpo demo
# The tests of programs that models write need bubblewrap to make namespaces: docker run --security-opt seccomp=unconfined
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make bubblewrap chromium \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /rvpo
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu \
    PIP_NO_CACHE_DIR=1 \
    VENV=/opt/rvpo \
    PATH=/opt/rvpo/bin:$PATH
COPY . .
RUN git config --global --add safe.directory /rvpo && mkdir -p "$VENV" && make "$VENV/.installed"
CMD ["bash"]
