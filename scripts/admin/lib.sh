# shellcheck shell=bash
# lib.sh
#
# What the scripts of this folder have in common: options, how they run commands, and how they wait. They read it; it does
# nothing by itself.
#
# Options of all scripts, for their --help:
#
#   --admin FILE   the administrator's credential, admin.json (ETHERLOOM_ADMIN)
#   --reach CMD    how other nodes are reached: CMD NODE COMMAND runs COMMAND, one word for a shell, at NODE as root, as
#                  'ssh -l root' does (ETHERLOOM_REACH). The node on which the script runs needs none
#   --wait S       how many seconds to wait for what takes time (20)
#   --dry-run      look, and say what would be run; change nothing
#   --help
#
# ETHERLOOM names the program if it is not in PATH, ETHERLOOM_STATE_DIR the state directory of this machine's daemon.

me=${0##*/} dry='' reach=${ETHERLOOM_REACH:-} patience=20 self='' used=0 problems=()

# etherloom runs the program, wherever it is.
etherloom() { command "${ETHERLOOM:-etherloom}" "$@"; }

# usage prints the head of the script, and the options that all have.
usage() {
  sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
  sed -n '/^#   --admin/,/^#$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

warn() { echo "$me: $*" >&2; }

die() {
  warn "$*"
  exit 1
}

# misuse ends a script that was called in a way that it does not understand.
misuse() {
  warn "$* (--help says how it is called)"
  exit 2
}

# value refuses an option without its value.
value() { (($# > 1)) || misuse "$1 needs a value"; }

# common takes an option that all scripts have, and sets used to the number of its words.
# shellcheck disable=SC2034 # the scripts read it
common() {
  used=2
  case $1 in
  --help | -h) usage && exit 0 ;;
  --dry-run) dry=1 used=1 ;;
  --admin) value "$@" && export ETHERLOOM_ADMIN=$2 ;;
  --reach) value "$@" && reach=$2 ;;
  --wait)
    value "$@"
    number --wait "$2"
    patience=$2
    ;;
  -*) misuse "there is no option $1" ;;
  *) misuse "$1 is one word too many" ;;
  esac
}

number() { [[ $2 =~ ^[0-9]{1,5}$ ]] || misuse "$1 takes a number, found '$2'"; }

named() { [[ $1 =~ ^[^/]+/[^/]+$ ]] || misuse "an attachment's port is named NODE/PORT, found '$1'"; }

# lower prints a MAC as etherloom does.
lower() {
  local mac=${1,,}
  mac=${mac//-/:}
  [[ $mac =~ ^([0-9a-f]{2}:){5}[0-9a-f]{2}$ ]] || misuse "a MAC is 6 bytes such as 02:00:5e:00:53:01, found '$1'"
  echo "$mac"
}

# begin makes sure of the programs that a script needs, and asks which node this machine is. It installs none: this may be a
# gateway at work.
begin() {
  local program missing=()
  for program in "$@"; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  ((${#missing[@]} == 0)) || die "needed and not installed: ${missing[*]} (on Debian: apt-get install jq iproute2 nftables)"
  command -v "${ETHERLOOM:-etherloom}" >/dev/null || die "etherloom is not in PATH: install it, or name it by ETHERLOOM=/path/to/etherloom"
  self=$(etherloom status --json 2>/dev/null | jq -r .name) || self=''
}

# administers refuses to go on without a credential, before anything is done.
administers() {
  [[ -n ${ETHERLOOM_ADMIN:-} ]] || die "no credential: name admin.json with --admin or ETHERLOOM_ADMIN; the controller wrote it into its data directory"
  [[ -r $ETHERLOOM_ADMIN ]] || die "the credential $ETHERLOOM_ADMIN cannot be read: name admin.json with --admin or ETHERLOOM_ADMIN"
}

# quoted prints words as a shell reads them.
quoted() {
  local word line=''
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    line+=" $word"
  done
  echo "${line# }"
}

# elsewhere says what to do about a node that commands cannot be run at.
elsewhere() {
  local why="$1 is not this machine ($self)"
  [[ -n $self ]] || why="no daemon answers on this machine, so it is not known to be $1 (\`etherloom status\` says why)"
  echo "$why: run this there, as root, or say how it is reached, such as --reach 'ssh -l root'"
}

reachable() { [[ $1 == "$self" || -n $reach ]]; }

# at runs a command at a node.
at() {
  local node=$1
  shift
  if [[ $node == "$self" ]]; then
    "$@" </dev/null
  elif [[ -n $reach ]]; then
    # shellcheck disable=SC2086 # it may be several words
    $reach "$node" "$(quoted "$@")" </dev/null
  else
    die "$(elsewhere "$node")"
  fi
}

# answers ends the script unless the daemon of a node answers, and is that node's.
answers() {
  local node=$1 said name
  reachable "$node" || die "$(elsewhere "$node")"
  [[ $node != "$self" ]] || return 0
  if ! said=$(at "$node" etherloom status --json 2>/dev/null); then
    said=$(at "$node" etherloom status --json 2>&1 >/dev/null) || true
    die "node $node does not answer by --reach '$reach' (${said##*$'\n'}): look whether a node is called so (\`etherloom node list\`)," \
      "whether $reach $node reaches it, and whether its daemon runs"
  fi
  name=$(jq -r .name 2>/dev/null <<<"$said") || name=''
  [[ $name == "$node" ]] || die "--reach '$reach' leads for $node to a machine that is node ${name:-unknown}: mend what $reach makes of that name, or run this at $node"
}

# does runs a command that changes something, or says that it would.
does() {
  if [[ -n $dry ]]; then
    echo "would run: $(quoted "$@")"
  else
    quoted "$@"
    "$@" >/dev/null
  fi
}

# does_at does so at a node.
does_at() {
  local node=$1
  shift
  if [[ -n $dry ]]; then
    echo "would run on $node: $(quoted "$@")"
  else
    echo "on $node: $(quoted "$@")"
    at "$node" "$@" >/dev/null
  fi
}

# await waits until a command succeeds.
await() {
  local end=$((SECONDS + patience))
  until "$@"; do
    ((SECONDS < end)) || return 1
    sleep 0.2
  done
}

# port_named prints all of an attachment's port, with id, segment, hosts and all ports of the attachment; nothing if there is none.
port_named() {
  jq -c --arg name "$1" '.attachments[] | . as $a | .ports[] | select(.name == $name)
    + {id: $a.id, segment: $a.segment, hosts: $a.hosts, all: [$a.ports[].name]}' <<<"$2"
}

# carries reports whether a port is there, on, and its link up.
carries() {
  at "$1" etherloom ports --json 2>/dev/null | jq -e --arg port "$2" --arg segment "$3" \
    'any(.ports[]; .kind == "attached" and .port == $port and .segment == $segment and .state == "on" and .up)' >/dev/null
}

# ready reports whether a port is there with its link up, and carries, or would if the gateway that does did not.
ready() {
  at "$1" etherloom port show "$2" --segment "$3" --json 2>/dev/null |
    jq -e '.port.up and (.port.state == "on" or .forwarder.phase == "stands by")' >/dev/null
}

# port_line prints a port as the node has it; nothing if it has none.
port_line() {
  at "$1" etherloom ports --json | jq -c --arg port "$2" --arg segment "$3" '.ports[] | select(.kind == "attached" and .port == $port and .segment == $segment)'
}

# behind counts the addresses that a node has learned behind a port.
behind() {
  at "$1" etherloom fdb --json | jq --arg port "$2" --arg segment "$3" '[.fdb[] | select(.port == $port and .segment == $segment and (.static | not))] | length'
}

# settle ends the script if there are problems, and names them all.
settle() {
  ((${#problems[@]} > 0)) || return 0
  local problem
  for problem in "${problems[@]}"; do
    warn "refused: $problem"
  done
  exit 1
}
