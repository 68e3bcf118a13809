# shellcheck shell=bash disable=SC2154 # lib.sh has the rest
# address.sh
#
# IP addresses: their form, and how they lie to the prefixes of segments, as a controller sees it.

# bits prints an address as 32 or 128 binary digits; it returns 1 for what is none.
bits() {
  local text=$1 part out='' head tail n
  if [[ $text =~ ^(.*:)?([0-9]+)\.([0-9]+)\.([0-9]+)\.([0-9]+)$ ]]; then
    local prefix=${BASH_REMATCH[1]} octets=("${BASH_REMATCH[@]:2:4}")
    for part in "${octets[@]}"; do
      [[ $part =~ ^(0|[1-9][0-9]{0,2})$ ]] && ((part < 256)) || return 1
    done
    if [[ -z $prefix ]]; then
      for part in "${octets[@]}"; do out+=$(binary "$part" 8); done
      echo "$out"
      return
    fi
    text=$prefix$(printf '%x:%x' $((octets[0] * 256 + octets[1])) $((octets[2] * 256 + octets[3])))
  fi
  [[ $text == *:* && $text =~ ^[0-9a-fA-F:]+$ && $text != *:::* && $text != *::*::* ]] || return 1
  [[ $text == ::* || $text != :* ]] && [[ $text == *:: || $text != *: ]] || return 1
  head=${text%%::*} tail=''
  [[ $text != *::* ]] || tail=${text##*::}
  head=${head//:/ } tail=${tail//:/ }
  n=$(wc -w <<<"$head $tail")
  if [[ $text == *::* ]]; then ((n < 8)) || return 1; else ((n == 8)) || return 1; fi
  for part in $head $(for ((; n < 8; n++)); do echo 0; done) $tail; do
    ((${#part} <= 4)) || return 1
    out+=$(binary $((16#$part)) 16)
  done
  echo "$out"
}

# binary prints a number with so many binary digits.
binary() {
  local n=$1 i out=''
  for ((i = 0; i < $2; i++, n /= 2)); do out=$((n % 2))$out; done
  echo "$out"
}

# within reports whether an address lies in a prefix, A/L.
within() {
  local a net length=${2#*/}
  a=$(bits "$1") && net=$(bits "${2%/*}") && [[ ${#a} == "${#net}" && ${a:0:length} == "${net:0:length}" ]]
}

# address refuses what is not an address of one machine, alone or with the length of its prefix.
address() {
  local text=${1%/*} length b rest range
  b=$(bits "$text") || misuse "an address is such as 192.0.2.9/24, found '$1'"
  length=${#b}
  if [[ $1 == */* ]]; then
    length=${1#*/}
    [[ $length =~ ^(0|[1-9][0-9]{0,2})$ && $length -le ${#b} ]] || misuse "the length of a prefix is 0 to ${#b}, found '$1'"
  fi
  for range in 0.0.0.0/32 127.0.0.0/8 224.0.0.0/4 ::/127 ff00::/8 ::ffff:0:0/96; do
    ! within "$text" "$range" || misuse "$text is not an address that a host can have"
  done
  rest=${b:length}
  ((${#rest} < 2)) || [[ $rest == *1* ]] || misuse "$1 is a prefix, expected an address: name each one that the host may use, or none to let it use all that are nobody's"
}

# look_addresses refuses what the controllers would, by their segments' prefixes, and warns of what is beyond the segment's own.
look_addresses() {
  local segment=$1 text name prefix b
  shift
  (($# > 0)) || return 0
  while IFS=$'\t' read -r name prefix; do
    for text in "$@"; do
      text=${text%/*}
      if [[ $name != "$segment" ]]; then
        ! within "$text" "$prefix" || problems+=("$text lies in the prefix of segment $name, not of $segment: choose another, or an attachment of $name")
      elif [[ $text == *:* ]] || [[ $prefix == *:* ]]; then
        continue
      elif ! within "$text" "$prefix"; then
        warn "$text lies outside of $prefix, the prefix of segment $segment: right if the VLAN has addresses of its own"
      else
        b=$(bits "$text") && b=${b:${prefix#*/}}
        [[ $b == *1* && $b == *0* ]] || problems+=("$text is an end of $prefix, the prefix of segment $segment, so no host can have it")
      fi
    done
  done < <(etherloom segment list --json | jq -r '.segments[] | .name as $n | .ipv4_prefix, .ipv6_prefix | select(. != null and . != "") | "\($n)\t\(.)"')
}
