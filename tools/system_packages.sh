#!/usr/bin/env bash
# Debian packages that the tests of outside systems use. Tests that miss one say so and are skipped.
set -euo pipefail
packages=()
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || packages+=(postgresql)
command -v redis-server >/dev/null || packages+=(redis-server)
command -v chromium >/dev/null || packages+=(chromium)
[ ${#packages[@]} -eq 0 ] && exit 0
install() {
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null && apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}
install || echo "tests: ${packages[*]} could not be installed; the tests that need them will be skipped." >&2
