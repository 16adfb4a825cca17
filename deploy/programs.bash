# How deploy/up and deploy/down know the programs of the demo again. Each has a
# file .run/NAME.pid with its process id and, where there is /proc, the time at
# which the kernel started it: a number may have gone to another program since.
# A signal from the terminal kills subshells and what runs in them, so that none
# is used here.

programs='echo-1 echo-2 echo-3 proxy ratelimit discovery'

# look_up PID: sets started to the time when that process was started, in the
# kernel's ticks, to "ended" if it only waits for its parent to take note of its
# end, or to nothing where nobody says so.
look_up() {
  local stat=
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || true
  set -- ${stat##*) } # the name, in parentheses, may hold anything
  started=${20-}
  [ "${1-}" != Z ] || started=ended
}

# remember NAME PID: takes down a program that was just started.
remember() {
  local started
  look_up "$2"
  echo "$2 $started" >".run/$1.pid"
}

# runs NAME: whether that program was started and still runs; pid is its process
# id then.
runs() {
  local started at=
  [ -e ".run/$1.pid" ] || return 1
  read -r pid at <".run/$1.pid" || true
  [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 1
  look_up "$pid"
  [ "$started" = "$at" ]
}
