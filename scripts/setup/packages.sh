#!/usr/bin/env bash
# Installs the system packages that are missing; does nothing, quickly, when all are there.
#
#   scripts/setup/packages.sh          what building and serving need
#   scripts/setup/packages.sh check    and what ./dev check and ./dev fmt need
#   scripts/setup/packages.sh test     and what the tests need but for the fuzz targets
#   scripts/setup/packages.sh fuzz     and those: ./dev fuzz, ./dev conformance, ./dev test
#
# Works as root or with sudo that asks for no password (or asks on a terminal); where neither is
# possible it names the packages and ends with 1.
set -euo pipefail
. "$(dirname "$0")/../common.sh"

# package, or package:command where having the command is enough (other sources have other names).
build_set=(g++:g++ cmake:cmake ninja-build:ninja ccache:ccache python3:python3 python3-pip
  python3-venv libboost1.81-dev libspdlog-dev libfmt-dev libcli11-dev libtomlplusplus-dev
  libgtest-dev libseccomp-dev libxxhash-dev prometheus-cpp-dev)
check_set=(clang-format-14:clang-format-14 binutils:nm)
test_set=(nodejs:node npm:npm iproute2:ip util-linux:unshare curl:curl procps:ps nginx-light:nginx
  openssl:openssl
  systemd:systemd-analyze)
fuzz_set=(clang-19:clang++-19 libclang-rt-19-dev)

case "${1:-build}" in
  build) wanted=("${build_set[@]}") ;;
  check) wanted=("${build_set[@]}" "${check_set[@]}") ;;
  test) wanted=("${build_set[@]}" "${check_set[@]}" "${test_set[@]}") ;;
  fuzz) wanted=("${build_set[@]}" "${check_set[@]}" "${test_set[@]}" "${fuzz_set[@]}") ;;
  *) die "no such package set: $1 (build, check, test, fuzz)" ;;
esac

missing_debian() {
  local entry package installed
  installed=$(dpkg-query -W -f='${Package}=${db:Status-Status} ' 2>/dev/null)
  for entry in "${wanted[@]}"; do
    package=${entry%%:*}
    if [ "$entry" != "$package" ] && command -v "${entry#*:}" >/dev/null; then continue; fi
    case " $installed" in *" $package=installed "*) ;; *) printf '%s\n' "$package" ;; esac
  done
}

as_root=()
may_install() {
  if [ "$(id -u)" = 0 ]; then return 0; fi
  command -v sudo >/dev/null || return 1
  as_root=(sudo)
  sudo -n true 2>/dev/null || [ -t 0 ]
}

install_debian() {
  local missing log
  missing=$(missing_debian)
  [ -n "$missing" ] || return 0
  missing=$(printf '%s' "$missing" | tr '\n' ' ')
  if ! may_install; then
    say "These packages are missing: $missing"
    say "Neither root nor sudo may be used here. Install them and run again:"
    say "  apt-get install $missing"
    exit 1
  fi
  log=$(mktemp)
  say "Installing packages: $missing ..."
  # ${a[@]+...}: bash 4.3 and older call an empty array unset.
  if ! { ${as_root[@]+"${as_root[@]}"} apt-get update -q &&
         ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive \
           apt-get install -y -q --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
    tail -20 "$log" >&2
    rm -f "$log"
    die "apt-get could not install: $missing"
  fi
  rm -f "$log"
  say "Installed."
}

# Untested: written from Homebrew's package names, never run on a Mac.
install_macos() {
  local formulas=(cmake ninja ccache python boost spdlog fmt cli11 tomlplusplus googletest xxhash
    prometheus-cpp) formula
  case "${1:-build}" in check | test | fuzz) formulas+=(clang-format@14) ;; esac
  case "${1:-build}" in test | fuzz) formulas+=(node nginx) ;; esac
  command -v brew >/dev/null || die "install Homebrew, then: brew install ${formulas[*]}"
  for formula in "${formulas[@]}"; do
    brew list --versions "$formula" >/dev/null || brew install "$formula" >&2
  done
}

if [ "$(uname -s)" = Darwin ]; then
  install_macos "${1:-build}"
elif command -v dpkg-query >/dev/null; then
  install_debian
else
  names=""
  for entry in "${wanted[@]}"; do
    command=${entry#*:}
    if [ "$command" != "$entry" ] && command -v "$command" >/dev/null; then continue; fi
    names="$names ${entry%%:*}"
  done
  say "This is neither Debian nor macOS; it cannot be seen what is missing. Debian's names for what"
  say "may be needed:$names"
fi
