#!/usr/bin/env bash
# Users of the broker, one per program:
#
#   service-user.sh add NAME ROLE    prints the new password
#   service-user.sh remove NAME
#   service-user.sh password NAME    a new password
#
# The roles: reader (changes, records, queries), service (commands, too), operator (also control messages, everybody's
# results), mirror (salesforce-sync mirror), upstream (the bridge of a broker that has the connector).
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
folder=${SALESFORCE_SYNC_BROKER:-/etc/salesforce-sync/mosquitto}

fail() { printf 'service-user: %s\n' "$*" >&2; exit 2; }

# An atomic replacement that keeps owner and mode: the broker may read it at any time.
replace() {
  chmod --reference="$2" "$1" && chown --reference="$2" "$1" && mv "$1" "$2"
}

set_password() {
  local password
  password=$(openssl rand -base64 24)
  cp -p "$folder/passwords" "$folder/passwords.new"
  # mosquitto_passwd takes a password from its arguments or a terminal only: -U hashes a file of plain ones instead.
  (umask 077 && printf '%s:%s\n' "$1" "$password" >"$folder/passwords.one")
  mosquitto_passwd -U "$folder/passwords.one"
  sed -i "/^$1:/d" "$folder/passwords.new"
  cat "$folder/passwords.one" >>"$folder/passwords.new"
  rm "$folder/passwords.one"
  replace "$folder/passwords.new" "$folder/passwords"
  printf '%s\n' "$password"
}

without_block() { # the ACL without the block of user $1
  awk -v user="$1" '/^user /{skip = ($2 == user)} /^#/{skip = 0} !skip' "$folder/acl"
}

reload() {
  if [ "$folder" = /etc/salesforce-sync/mosquitto ] && systemctl is-active --quiet mosquitto; then
    systemctl reload mosquitto
  fi
}

[ $# -ge 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
verb=$1 name=$2
[[ $name =~ ^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$ ]] || fail "$name: a name has 1 to 64 characters out of A-Z a-z 0-9 _ -"
case $verb in
  add)
    role=$here/role-${3:-}.acl
    [ -f "$role" ] || fail "the role is reader, service, operator, mirror or upstream"
    ! grep -qx "user $name" "$folder/acl" || fail "$name is there already"
    { cat "$folder/acl"; printf '\n'; sed "s/@USER@/$name/" "$role"; } >"$folder/acl.new"
    replace "$folder/acl.new" "$folder/acl"
    set_password "$name"
    ;;
  remove)
    case $name in salesforce-sync | bridge) fail "$name belongs to the installation" ;; esac
    without_block "$name" >"$folder/acl.new"
    replace "$folder/acl.new" "$folder/acl"
    cp -p "$folder/passwords" "$folder/passwords.new"
    sed -i "/^$name:/d" "$folder/passwords.new"
    replace "$folder/passwords.new" "$folder/passwords"
    ;;
  password)
    grep -qx "user $name" "$folder/acl" || fail "$name is not there"
    set_password "$name"
    ;;
  *) fail "$verb: add, remove or password" ;;
esac
reload
