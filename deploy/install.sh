#!/usr/bin/env bash
# Installs salesforce-sync and its broker as services on this node (Debian 12 or later, arm64 or amd64); run again, from a
# newer checkout, it upgrades. Nothing that is there already is overwritten: settings, secrets, replica, users.
#
#   sudo deploy/install.sh --instance-url https://yourdomain.my.salesforce.com --secrets .env
#   sudo deploy/install.sh                   upgrade, or repair
#   sudo deploy/install.sh --rollback        back to the release before
#   sudo deploy/install.sh --uninstall       leaves data, settings and secrets
#   sudo deploy/install.sh --uninstall --purge
#
#   --instance-url URL  the org's address, for the settings file of a first install
#   --secrets FILE      NAME=VALUE lines (.env.example names them): stored for the service alone
#   --wheels DIR        take Python packages from this folder instead of the index (a node without internet)
#   --no-broker         there is a broker elsewhere: set [mqtt] in the settings, MQTT_USERNAME and MQTT_PASSWORD as secrets
set -euo pipefail
umask 022
source_tree=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)

readonly home=/opt/salesforce-sync config=/etc/salesforce-sync state=/var/lib/salesforce-sync units=/etc/systemd/system
readonly credentials=/etc/credstore service=salesforce-sync broker_drop_in=/etc/systemd/system/mosquitto.service.d
readonly journal_drop_in=/etc/systemd/journald.conf.d
readonly replica=$state/data/salesforce.db start_timeout_s=900
secret_names=(SF_USERNAME SF_PASSWORD SF_SECURITY_TOKEN SF_CLIENT_ID SF_CLIENT_SECRET SF_PRIVATE_KEY_FILE
  SF_REFRESH_TOKEN SF_ACCESS_TOKEN MQTT_USERNAME MQTT_PASSWORD)

say() { printf '==> %s\n' "$*"; }
fail() { printf 'install: %s\n' "$*" >&2; exit 1; }
usage() { sed -n '2,17s/^# \{0,1\}//p' "$0" >&2; exit 2; }

action=install instance_url='' secrets='' wheels='' with_broker=yes purge=no
while [ $# -gt 0 ]; do
  case $1 in
    --rollback) action=rollback ;;
    --uninstall) action=uninstall ;;
    --purge) purge=yes ;;
    --no-broker) with_broker=no ;;
    --instance-url | --secrets | --wheels)
      [ $# -ge 2 ] || usage
      case $1 in
        --instance-url) instance_url=$2 ;;
        --secrets) secrets=$(readlink -f "$2") ;;
        --wheels) wheels=$(readlink -f "$2") ;;
      esac
      shift
      ;;
    *) usage ;;
  esac
  shift
done

# --- What must be there

check_machine() {
  [ "$(id -u)" -eq 0 ] || fail "run it as root (sudo)"
  local version
  version=$(systemctl --version | awk 'NR == 1 {print $2}')
  [ "$version" -ge 252 ] || fail "systemd 252 or later is needed (Debian 12); this is $version"
  [ -z "$secrets" ] || [ -r "$secrets" ] || fail "$secrets cannot be read"
  [ -z "$wheels" ] || [ -d "$wheels" ] || fail "$wheels is no folder"
}

install_packages() {
  local packages=()
  python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
  command -v openssl >/dev/null || packages+=(openssl)
  [ -e /usr/sbin/mosquitto ] || [ "$with_broker" = no ] || packages+=(mosquitto)
  if [ ${#packages[@]} -gt 0 ]; then
    say "installing Debian packages: ${packages[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
  fi
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or later is needed"
}

make_user() {
  install -D -m 644 "$source_tree/deploy/sysusers.conf" /usr/lib/sysusers.d/salesforce-sync.conf
  systemd-sysusers salesforce-sync.conf
}

# --- A release: code, dependencies and units, in a folder that is named by what is in it

release_name() {
  local version digest
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$source_tree/pyproject.toml")
  digest=$(cd "$source_tree" && find connector deploy pyproject.toml README.md -type f ! -path '*/__pycache__/*' -print0 |
    sort -z | xargs -0 sha256sum | sha256sum | cut -c1-12)
  printf '%s-%s' "$version" "$digest"
}

build_release() { # into $1; what a broken run left behind is made anew
  local folder=$1 from=() built
  [ ! -e "$folder/complete" ] || return 0
  say "building release $(basename "$folder")"
  rm -rf "$folder"
  mkdir -p "$folder"
  [ -z "$wheels" ] || from=(--no-index --find-links "$wheels")
  python3 -m venv "$folder"
  local pip=("$folder/bin/python" -m pip --quiet --disable-pip-version-check --no-cache-dir)
  "${pip[@]}" install --require-hashes --only-binary :all: "${from[@]}" -r "$source_tree/deploy/requirements.txt"
  built=$(mktemp -d)
  # Built from a copy: setuptools writes beside the sources.
  cp -r "$source_tree/connector" "$source_tree/pyproject.toml" "$source_tree/README.md" "$source_tree/LICENSE" "$built"
  "${pip[@]}" install --no-deps --no-index --no-build-isolation "$built"
  rm -rf "$built"
  mkdir -p "$folder/share"
  cp -r "$source_tree/deploy" "$folder/share/deploy"
  "$folder/bin/salesforce-sync" --version >/dev/null
  sync -f "$folder"
  touch "$folder/complete"
}

install_units() { # those of release $1
  local deploy=$1/share/deploy
  install -m 644 "$deploy"/systemd/* "$units"
  install -D -m 755 "$deploy/salesforce-sync" /usr/local/bin/salesforce-sync
  bound_journal "$deploy/journald.conf"
  systemctl daemon-reload
}

bound_journal() { # as $1 says, if it says anything; none in a release from before there was one
  [ -e "$1" ] && ! cmp -s "$1" "$journal_drop_in/salesforce-sync.conf" || return 0
  install -D -m 644 "$1" "$journal_drop_in/salesforce-sync.conf"
  systemctl try-restart systemd-journald
}

point() { # link $1 at $2, at once
  ln -sfn "$2" "$1.new"
  mv -T "$1.new" "$1"
}

keep_two() { # the current release and the one before
  local folder
  for folder in "$home"/releases/*; do
    case $folder in
      "$(readlink -f "$home/current")" | "$(readlink -f "$home/previous")") ;;
      *) rm -rf "$folder" ;;
    esac
  done
}

# --- Settings and secrets

store_secret() { # $1=NAME, its value from standard input; whole, or not at all
  local file=$credentials/salesforce-sync.$1
  (umask 077 && cat >"$file.new")
  mv "$file.new" "$file"
}

has_secret() {
  [ -e "$credentials/salesforce-sync.$1" ] || [ -e "$credentials.encrypted/salesforce-sync.$1" ]
}

take_secrets() {
  install -d -m 700 "$credentials" "$credentials.encrypted"
  [ -n "$secrets" ] || return 0
  local name value
  while IFS='=' read -r name value || [ -n "$name" ]; do # the last line may lack its end
    [[ " ${secret_names[*]} " == *" $name "* ]] || continue
    value=${value%$'\r'}
    [ -n "$value" ] || continue
    if [ "$name" = SF_PRIVATE_KEY_FILE ]; then
      store_secret "$name" <"$value"
    else
      printf '%s' "$value" | store_secret "$name"
    fi
    say "stored $name"
  done <"$secrets"
}

write_settings() {
  install -d -m 755 "$config"
  [ ! -e "$config/settings.toml" ] || return 0
  local written
  written=$(mktemp -d)
  "$home/current/bin/salesforce-sync" --settings "$written/settings.toml" init \
    ${instance_url:+--instance-url "$instance_url"} >/dev/null
  install -m 644 "$written/settings.toml" "$config/settings.toml"
  rm -rf "$written"
  say "wrote $config/settings.toml"
}

# --- The broker

broker_is_someones() { # Debian's own configuration was edited, and ours is not in place
  [ ! -e "$broker_drop_in/salesforce-sync.conf" ] && {
    [ -n "$(find /etc/mosquitto/conf.d -name '*.conf' 2>/dev/null)" ] ||
      dpkg --verify mosquitto 2>/dev/null | grep -q /etc/mosquitto/mosquitto.conf
  }
}

install_broker() {
  local folder=$config/mosquitto shipped=$home/current/share/deploy/mosquitto
  ! broker_is_someones || fail "mosquitto has a configuration of its own here: use --no-broker, or move it away"
  install -d -m 755 "$folder"
  install -d -m 750 -g mosquitto "$folder/tls"
  [ -e "$folder/mosquitto.conf" ] || install -m 644 "$shipped/mosquitto.conf" "$folder/mosquitto.conf"
  [ -e "$folder/acl" ] || install -m 640 -g mosquitto "$shipped/acl" "$folder/acl"
  [ -e "$folder/passwords" ] || install -m 640 -g mosquitto /dev/null "$folder/passwords"
  [ -e "$folder/tls/server.crt" ] || make_certificate "$folder/tls"
  if ! grep -q '^salesforce-sync:' "$folder/passwords" || ! has_secret MQTT_PASSWORD; then
    "$shipped/service-user.sh" password salesforce-sync | tr -d '\n' | store_secret MQTT_PASSWORD
    printf salesforce-sync | store_secret MQTT_USERNAME
  fi
  if ! cmp -s "$shipped/salesforce-sync.conf" "$broker_drop_in/salesforce-sync.conf"; then
    install -D -m 644 "$shipped/salesforce-sync.conf" "$broker_drop_in/salesforce-sync.conf"
    chown -R mosquitto:mosquitto /var/lib/mosquitto
    systemctl daemon-reload
    systemctl enable --quiet mosquitto
    systemctl restart mosquitto
    say "the broker runs: 127.0.0.1:1883, and 8883 with TLS"
  fi
}

make_certificate() { # a CA of the node's own, and the broker's certificate; replace them by your own at any time
  local name
  name=$(hostname)
  (
    umask 077
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$name salesforce-sync CA" \
      -keyout "$1/ca.key" -out "$1/ca.crt" 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
      -keyout "$1/server.key" -out "$1/server.csr" 2>/dev/null
    openssl x509 -req -in "$1/server.csr" -CA "$1/ca.crt" -CAkey "$1/ca.key" -days 3650 -out "$1/server.crt" \
      -extfile <(printf 'subjectAltName=DNS:%s,DNS:%s.local,DNS:localhost,IP:127.0.0.1\n' "$name" "$name") 2>/dev/null
  )
  rm "$1/server.csr"
  chgrp mosquitto "$1/server.key" "$1/server.crt" "$1/ca.crt"
  chmod 640 "$1/server.key"
  chmod 644 "$1/server.crt" "$1/ca.crt"
}

# --- From one release to another

schema() { # of the replica, while nobody works on it: bytes 60 to 63 of the file, big-endian
  [ ! -e "$replica" ] || od -An -tu1 -j60 -N4 "$replica" | awk '{print (($1 * 256 + $2) * 256 + $3) * 256 + $4}'
}

as_service() { # a command of release $1, on the service's settings and data
  runuser -u salesforce-sync -- env -C "$state" SALESFORCE_SYNC_SETTINGS="$config/settings.toml" \
    "$1/bin/salesforce-sync" "${@:2}"
}

copy_replica() { # with release $1; prints the copy
  [ ! -e "$replica" ] || as_service "$1" backup | sed -n '1s/: .*//p'
}

switch() { # to release $1, from $2; back again if it does not get ready
  local new=$1 old=$2 before copy=''
  systemctl stop "$service" salesforce-sync-retry.timer 2>/dev/null || true
  before=$(schema)
  copy=$(copy_replica "$old")
  printf '%s\n%s\n' "$before" "$copy" >"$new/came-from"
  point "$home/previous" "$old"
  point "$home/current" "$new"
  install_units "$new"
  say "starting $(basename "$new")"
  if ! start; then
    say "it does not get ready; its last words:"
    journalctl -u "$service" -n 20 --no-pager -o cat >&2 || true
    go_back "$new" "$old"
    fail "went back to $(basename "$old"), which runs; nothing was lost"
  fi
}

start() {
  systemctl reset-failed "$service" 2>/dev/null || true
  timeout "$start_timeout_s" systemctl start "$service"
}

go_back() { # from release $1 to $2
  local before copy
  systemctl stop "$service" salesforce-sync-retry.timer 2>/dev/null || true
  { read -r before; read -r copy; } <"$1/came-from" || true
  if [ -e "$replica" ] && [ "$(schema)" != "$before" ]; then
    # The older release does not know the newer schema. What the org told since comes again; commands do not.
    [ -n "$copy" ] || fail "the replica is of schema $(schema), release $(basename "$2") knows ${before:-none}, and there is no backup"
    say "the replica has a newer schema: back to $copy"
    as_service "$2" restore "$copy"
  fi
  point "$home/current" "$2"
  install_units "$2"
  start
}

open_commands() { # accepted or under way
  as_service "$1" commands --json 2>/dev/null | grep -cE '"status": ?"(accepted|sending)"' || true
}

# --- What the operator asks for

do_install() {
  check_machine
  install_packages
  make_user
  local folder current
  folder=$home/releases/$(release_name)
  current=$(readlink -f "$home/current" 2>/dev/null || true)
  build_release "$folder"
  take_secrets
  if [ -z "$current" ] || [ ! -e "$current/complete" ]; then
    point "$home/current" "$folder"
    install_units "$folder"
    first_start
  elif [ "$current" = "$folder" ]; then
    install_units "$folder"
    first_start
  else
    [ "$with_broker" = no ] || install_broker
    switch "$folder" "$current"
    systemctl enable --quiet --now salesforce-sync-backup.timer salesforce-sync-verify.timer
    keep_two
  fi
  say "release $(basename "$folder") is in place"
}

first_start() {
  write_settings
  [ "$with_broker" = no ] || install_broker
  systemctl enable --quiet "$service"
  systemctl enable --quiet --now salesforce-sync-backup.timer salesforce-sync-verify.timer
  if has_secret SF_CLIENT_ID || has_secret SF_ACCESS_TOKEN; then
    start || fail "the service does not get ready: journalctl -u $service, and salesforce-sync doctor"
    say "the service runs: systemctl status $service"
  else
    say "no secrets yet: put them into a file as .env.example shows, run this again with --secrets FILE, remove the file"
  fi
}

do_rollback() {
  check_machine
  local old new
  old=$(readlink -f "$home/previous" 2>/dev/null || true)
  new=$(readlink -f "$home/current")
  [ -e "${old:-/none}/complete" ] || fail "there is no release before this one"
  [ -e "$new/came-from" ] || fail "$(basename "$new") did not come by an upgrade"
  systemctl stop "$service"
  if [ "$(schema)" != "$(head -1 "$new/came-from")" ] && [ "$(open_commands "$new")" -gt 0 ]; then
    start
    fail "commands are waiting for the org, and the replica has to go back: try again when they are done"
  fi
  go_back "$new" "$old"
  rm "$home/previous"
  say "release $(basename "$old") is in place again"
}

do_uninstall() {
  [ "$(id -u)" -eq 0 ] || fail "run it as root (sudo)"
  local unit
  for unit in "$service.service" salesforce-sync-{backup,verify,retry}.{timer,service}; do
    systemctl disable --quiet --now "$unit" 2>/dev/null || true
    rm -f "$units/$unit"
  done
  if [ -e "$broker_drop_in/salesforce-sync.conf" ]; then
    rm -f "$broker_drop_in/salesforce-sync.conf"
    rmdir --ignore-fail-on-non-empty "$broker_drop_in"
    systemctl daemon-reload
    systemctl restart mosquitto || true
  fi
  rm -f "$journal_drop_in/salesforce-sync.conf"
  systemctl daemon-reload
  systemctl reset-failed 2>/dev/null || true
  rm -rf "$home" /usr/local/bin/salesforce-sync
  if [ "$purge" = yes ]; then
    rm -rf "$state" "$config" "$credentials"/salesforce-sync.* "$credentials.encrypted"/salesforce-sync.*
    rm -f /usr/lib/sysusers.d/salesforce-sync.conf
    userdel salesforce-sync 2>/dev/null || true
    say "removed, with all data, settings and secrets"
  else
    say "removed; the replica ($state), settings ($config) and secrets ($credentials) are still there"
  fi
}

"do_$action"
