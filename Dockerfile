# One image for all nodes of a Ray cluster: head, workers, and the job that submits.
# NOT BUILT by us: there is no container registry where this was written. The versions are those of
# constraints.txt, which the tests ran with; torch's wheels bring CUDA.
FROM python:3.11.14-slim-bookworm

# ray up and KubeRay talk to a container through these
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openssh-client rsync wget \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 legrad
WORKDIR /opt/legrad
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY legrad legrad
COPY pipeline pipeline
COPY jobs jobs
COPY configs configs
# boto3: the autoscaler of `ray up` runs on the head node and starts the workers with it
RUN pip install --no-cache-dir --disable-pip-version-check -c constraints.txt . boto3

USER legrad
WORKDIR /home/legrad
ENV OMP_WAIT_POLICY=PASSIVE \
    PYTHONUNBUFFERED=1 \
    RAY_AUTH_MODE=token
CMD ["legrad", "--help"]
