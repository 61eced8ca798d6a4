# shellcheck shell=sh
# What became of the hosts, for machines: LOLLYPOPS_RESULTS=FILE gets one JSON object a line; GitHub a step summary and annotations.
# shellcheck disable=SC2030,SC2031,SC2015,SC2016,SC2034,SC2154

json_lines() { # stdin: lines of fields between tabs; each field becomes a JSON string in ASCII, where what is no UTF-8 is U+FFFD
  od -An -v -tu1 | awk '
    { for (i = 1; i <= NF; i++) { b[n++] = $i + 0; if ($i == 10) { line(); n = 0 } } }
    function line(  i, j, c, more) {
      printf "\""
      for (i = 0; i < n - 1; i++) {
        c = b[i]; more = c < 128 ? 0 : c < 194 ? -1 : c < 224 ? 1 : c < 240 ? 2 : c < 245 ? 3 : -1
        if (more > 0) c -= more == 1 ? 192 : more == 2 ? 224 : 240
        for (j = 1; j <= more; j++) if (i + j < n && b[i + j] >= 128 && b[i + j] < 192) c = c * 64 + b[i + j] % 64; else more = -1
        if (more == 2 && (c < 2048 || c >= 55296 && c < 57344) || more == 3 && (c < 65536 || c > 1114111)) more = -1
        if (more < 0) { c = 65533; more = 0 }
        if (c == 9) printf "\"\t\""
        else if (c == 34 || c == 92) printf "\\%c", c
        else if (c > 31 && c < 127) printf "%c", c
        else if (c < 65536) printf "\\u%04x", c
        else printf "\\u%04x\\u%04x", 55296 + int((c - 65536) / 1024), 56320 + (c - 65536) % 1024
        i += more
      }
      print "\""
    }'
}
json() { json=$(say "$1" | json_lines); }   # sets $json to $1, one line, as a JSON string
result_line() { # OUTCOME MESSAGE [,"name":value…]: of this step
  [ -n "$LOLLYPOPS_RESULTS" ] || return 0
  now; set_printable "$2"
  { printf '%s\t%s\t%s\t%s\t%s\n' "$host" "$step" "$1" $((now - step_began)) "$printable"; } | results "${3-}"
}
results() { # stdin: HOST STEP OUTCOME HUNDREDTHS MESSAGE, between tabs; appends them all at once: the lines of runs in parallel do not mix
  make_run
  json_lines | more=$1 awk -F'\t' '{ gsub(/"/, "", $4)
    printf "{\"host\":%s,\"step\":%s,\"outcome\":%s,\"message\":%s,\"seconds\":%.1f%s}\n", $1, $2, $3, $5, $4 / 100, ENVIRON["more"] }' >"$notes/result.$$"
  { dd bs=1048576 <"$notes/result.$$" >>"$LOLLYPOPS_RESULTS"; } 2>/dev/null ||
    say "lollypops: ${host:+$host: }cannot write LOLLYPOPS_RESULTS, $LOLLYPOPS_RESULTS" >&2
  rm -f -- "$notes/result.$$"
}
tell_github() { # stdin: such lines; only those that are not as asked are told one by one
  summary=${GITHUB_STEP_SUMMARY:-/dev/null} awk -F'\t' -v what="$what" '
    function escaped(text, set,  i, c, out) { # as HTML, in which no character of `set` means anything
      for (i = 1; i <= length(text); i++) { c = substr(text, i, 1); out = out (index(set, c) ? "&#" codes[c] ";" : c) }
      return out
    }
    BEGIN { summary = ENVIRON["summary"]; for (i = 33; i < 127; i++) codes[sprintf("%c", i)] = i; set = "&<>|*_[]`~!#@\\()+-:" }
    { total++; count[$3]++ }
    $3 != "deployed" && $3 != "unchanged" {
      told = $5; gsub(/%/, "%25", told); gsub(/##\[/, "## [", told)
      printf "::%s title=%s %s::at %s: %s\n", $3 == "skipped" ? "warning" : "error", $1, $3, $2, told
      rows = rows "| " escaped($1, "_") " | " $3 " | " $2 " | " escaped($5, set) " |\n"
    }
    END {
      printf "### lollypops: %d of %d hosts %s\n\n", count["deployed"] + count["unchanged"], total, what >>summary
      if (rows) printf "| host | outcome | step | |\n|---|---|---|---|\n%s\n", rows >>summary
    }'
}
