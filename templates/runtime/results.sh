# shellcheck shell=sh
# LOLLYPOPS_RESULTS=FILE: one JSON object a line, appended to FILE.
# shellcheck disable=SC2015,SC2034,SC2154

json() { # sets $json to $1 as a JSON string in ASCII; what is no UTF-8 becomes U+FFFD
  json=$(printf %s "$1" | od -An -v -tu1 | awk '
    { for (i = 1; i <= NF; i++) b[n++] = $i + 0 }
    END {
      for (i = 0; i < n; i++) {
        c = b[i]; more = c < 128 ? 0 : c < 194 ? -1 : c < 224 ? 1 : c < 240 ? 2 : c < 245 ? 3 : -1
        if (more > 0) c -= more == 1 ? 192 : more == 2 ? 224 : 240
        for (j = 1; j <= more; j++) if (b[i + j] >= 128 && b[i + j] < 192) c = c * 64 + b[i + j] % 64; else more = -1
        if (more == 2 && (c < 2048 || c >= 55296 && c < 57344) || more == 3 && (c < 65536 || c > 1114111)) more = -1
        if (more < 0) { c = 65533; more = 0 }
        if (c == 34 || c == 92) printf "\\%c", c
        else if (c > 31 && c < 127) printf "%c", c
        else if (c < 65536) printf "\\u%04x", c
        else printf "\\u%04x\\u%04x", 55296 + int((c - 65536) / 1024), 56320 + (c - 65536) % 1024
        i += more
      }
    }')
  json="\"$json\""
}
result_line() { # OUTCOME MESSAGE [,"name":value…]
  [ -n "$LOLLYPOPS_RESULTS" ] || return 0
  json "$host"; line="{\"host\":$json"
  json "$step"; line="$line,\"step\":$json,\"outcome\":\"$1\""
  json "$2"; line="$line,\"message\":$json,\"seconds\":$(($(date +%s) - began))${3-}}"
  make_run
  # By dd, which writes all of it at once: the lines of hosts in parallel do not mix.
  printf '%s\n' "$line" >"$run/result.$$"
  { dd bs=1048576 <"$run/result.$$" >>"$LOLLYPOPS_RESULTS"; } 2>/dev/null ||
    say "lollypops: $host: cannot write LOLLYPOPS_RESULTS, $LOLLYPOPS_RESULTS" >&2
  rm -f -- "$run/result.$$"
}
