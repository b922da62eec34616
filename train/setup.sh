#!/usr/bin/env bash
# Installs what building Carousel needs on Debian 12 or Ubuntu 24.04, by apt package names alone.
# Usage: bash train/setup.sh [--tests] [--text]
#   --tests  also what tests/run.sh needs
#   --text   also the King James Bible, the quickstart's training text
# Does nothing (and needs neither root nor a network) where all packages are there already.
set -euo pipefail

packages=(g++ cmake ninja-build ca-certificates
  libfmt-dev libspdlog-dev libyaml-cpp-dev nlohmann-json3-dev libcli11-dev libxxhash-dev
  libsentencepiece-dev libopenblas-openmp-dev libgloo-dev)
for option in "$@"; do
  case "$option" in
    --tests) packages+=(libgtest-dev libbenchmark-dev clang-format-14 clang-tidy-14 python3 git iproute2) ;;
    --text) packages+=(bible-kjv) ;;
    *) echo "setup.sh: unknown option '$option'" >&2; exit 2 ;;
  esac
done

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "setup.sh: this is not Debian or Ubuntu; install the equivalents of: ${missing[*]}" >&2
  exit 2
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup.sh: run as root, or first: apt-get install ${missing[*]}" >&2
    exit 2
  fi
  as_root=(sudo)
fi
echo "installing: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
