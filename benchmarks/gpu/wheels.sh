#!/bin/sh
# Collects the wheels that a GPU machine without a network lacks: foresay itself, of this checkout, and tyro, gguf and
# FastAPI with what they need. torch, transformers, safetensors, peft, numpy, rich, jinja2, pyyaml, pytest, hypothesis,
# httpx, anyio, click, h11, tqdm, requests and prometheus-client are taken to be there.
#
#   sh benchmarks/gpu/wheels.sh build/wheels                                        here, with a network; 6 MB
#   python -m pip install --no-index --no-deps --target site build/wheels/*.whl     there
#   PYTHONPATH=site python benchmarks/gpu/run.py --out results --commit "$(cat build/wheels/COMMIT)"
#
# PYTHON (3.12) and PLATFORM (manylinux2014_x86_64) say what the machine is; PIP which pip does it.
set -eu
out=${1:?give the folder for the wheels}
root=$(dirname "$0")/../..
pip=${PIP:-python3 -m pip}
mkdir -p "$out"
rm -f "$out"/*.whl
# By name and without what they ask for, so that nothing comes along that is there already, torch above all.
$pip download --quiet --no-deps --only-binary=:all: --implementation cp \
    --python-version "${PYTHON:-3.12}" --platform "${PLATFORM:-manylinux2014_x86_64}" --dest "$out" \
    tyro docstring-parser typeguard typing-extensions gguf \
    fastapi starlette pydantic pydantic-core annotated-types annotated-doc typing-inspection opentelemetry-api uvicorn
$pip wheel --quiet --no-deps --wheel-dir "$out" "$root"
git -C "$root" rev-parse HEAD > "$out/COMMIT"
du -sh "$out"
