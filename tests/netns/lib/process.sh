# Processes of a run: each started inside its host, its pid kept, ended by that pid. And waiting for events.

# start NAME HOST COMMAND…: in the background; output in $W/log/NAME.log
start() {
  local name=$1 host=$2; shift 2
  set_enter "$host"
  "${ENTER[@]}" "$@" >>"$W/log/$name.log" 2>&1 </dev/null 3>&- 4>&- &
  echo $! >"$W/pid/$name"
  disown $!   # the shell reaps it all the same, and does not comment on how it ended
}

pid_of() { cat "$W/pid/$1"; }
log_of() { echo "$W/log/$1.log"; }
is_running() { [ -s "$W/pid/$1" ] && kill -0 "$(pid_of "$1")" 2>/dev/null; }

# stop NAME [SIGNAL]: signals, and returns when the process is gone (KILL after 5 s, and then returns 1).
stop() {
  local pid; pid=$(pid_of "$1" 2>/dev/null) || return 0
  local ok=0
  kill "-${2:-TERM}" "$pid" 2>/dev/null || true
  until_true 50 gone "$pid" || { ok=1; kill -KILL "$pid" 2>/dev/null || true; }
  rm -f "$W/pid/$1"
  return $ok
}

# Gone means reaped: before that, a killed process may still hold its sockets.
gone() { ! kill -0 "$1" 2>/dev/null; }

# until_true TENTHS COMMAND…: polls a condition, at most that long.
until_true() {
  local tries=$(($1 * 2)); shift
  while ! "$@" >/dev/null 2>&1; do
    [ $((tries--)) -gt 0 ] || return 1
    sleep 0.05
  done
}

# wait_for SECONDS "what" COMMAND…: as above, and the test fails where it does not come true.
wait_for() {
  local seconds=$1 what=$2; shift 2
  until_true $((seconds * 10)) "$@" || fail "$what within $seconds s" "it did not happen"
}

# Now, in milliseconds of a clock that never jumps.
now_ms() { awk '{ printf "%d\n", $1 * 1000 }' /proc/uptime; }

# Ends every process of the run: those started by name, then whatever they left in our own namespaces.
processes_end() {
  local f pid h
  for f in "$W"/pid/*; do
    [ -s "$f" ] && kill -TERM "$(cat "$f")" 2>/dev/null
  done
  for f in "$W"/pid/*; do
    [ -s "$f" ] || continue
    pid=$(cat "$f")
    until_true 30 gone "$pid" || kill -KILL "$pid" 2>/dev/null
    rm -f "$f"
  done
  for h in "${HOSTS[@]}"; do
    [ -e "/run/netns/$WORLD-$h" ] || continue
    for pid in $(ip netns pids "$WORLD-$h" 2>/dev/null); do kill -KILL "$pid" 2>/dev/null; done
  done
  return 0
}
