#!/usr/bin/env bash
# A Ray cluster on this machine, to use it as one uses a large one: a head and two workers, each a `ray start`
# of its own with its own resources. The dashboard is on the loopback address; Ray opens its other ports on all
# of the machine's addresses, where the token guards them.
#
#   cluster/local.sh up
#   cluster/local.sh submit --config FILE.toml --output DIR     # any arguments of `cvgl-ray train`
#   cluster/local.sh down
#
# From the environment: CVGL_RAY_CLUSTER (folder of token, logs and process ids; short, as Ray's socket paths
# lie below it), CVGL_RAY_PORT (and the one after it), CVGL_RAY_DASHBOARD_PORT, CVGL_RAY_CPUS (a worker's),
# CVGL_RAY_OBJECT_STORE (bytes, each process's).
set -euo pipefail

folder=${CVGL_RAY_CLUSTER:-$HOME/.cvgl_ray/cluster}
port=${CVGL_RAY_PORT:-6399}
dashboard_port=${CVGL_RAY_DASHBOARD_PORT:-8265}
cores=$(getconf _NPROCESSORS_ONLN)
worker_cpus=${CVGL_RAY_CPUS:-$(((cores + 1) / 2))}
object_store=${CVGL_RAY_OBJECT_STORE:-1000000000}
nodes=(head worker-1 worker-2)
start_limit_s=120

# Every process of the cluster and every client needs both; Ray hands them on to the jobs.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$folder/.ray/auth_token
unset RAY_AUTH_TOKEN RAY_ADDRESS
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=1 RAY_USAGE_STATS_ENABLED=0
export RAY_JOB_STOP_WAIT_TIME_S=30 # a stopped job has this long to bring its files to where they are kept
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # else each node waits half a minute when it is told to end

fail() {
  echo "cluster/local.sh: $*" >&2
  exit 1
}

make_token() {
  mkdir -p "$folder"
  chmod 700 "$folder"
  [ -s "$RAY_AUTH_TOKEN_PATH" ] && return
  # Ray writes a new token below HOME; a home of its own leaves the user's other clusters alone.
  (umask 077 && env -u RAY_AUTH_TOKEN_PATH HOME="$folder" ray get-auth-token --generate >/dev/null 2>&1) ||
    fail "no token could be made in $folder"
}

# The command is looked at too: after a restart of the machine the number may be another process's. No pipe into
# `grep -q`, which ends first: `ps` may then die of SIGPIPE, and the node would seem to be gone.
running() {
  [ -f "$folder/$1.pid" ] && [[ $(ps -p "$(cat "$folder/$1.pid")" -o command=) == *"ray start --block"* ]]
}

# `--block` keeps a parent that stops its node's processes, and no others, when it is told to end.
start() {
  local node=$1
  shift
  : >"$folder/$node.log" # what an earlier cluster wrote there is no sign of this one
  nohup ray start --block --object-store-memory="$object_store" \
    --dashboard-agent-listen-port=0 "$@" >"$folder/$node.log" 2>&1 </dev/null &
  echo $! >"$folder/$node.pid"
  # On a busy machine it takes its name late, and would seem to be gone.
  until running "$node" || ! kill -0 $! 2>/dev/null; do sleep 0.05; done
}

# Waits until Ray says that the node runs; ends everything where it does not.
await() {
  local node=$1 waited=0
  until grep -q "Ray runtime started" "$folder/$node.log"; do
    if ! running "$node" || [ $((waited += 1)) -gt $((start_limit_s * 5)) ]; then
      tail -n 20 "$folder/$node.log" >&2
      down >/dev/null
      fail "$node ended or did not start within $start_limit_s s; its log is above and in $folder/$node.log"
    fi
    sleep 0.2
  done
}

# Whether something listens on a port of the loopback. Ray itself starts without its dashboard where that is so.
taken() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

up() {
  local node number
  for node in "${nodes[@]}"; do
    running "$node" && fail "the cluster of $folder is already running; stop it with cluster/local.sh down"
  done
  for number in "$port" $((port + 1)) "$dashboard_port"; do
    taken "$number" && fail "port $number of this machine is taken; choose others by CVGL_RAY_PORT (and the one" \
      "after it) and CVGL_RAY_DASHBOARD_PORT"
  done
  make_token
  set -m # a process group each: Ctrl-C in this terminal does not reach them
  start head --head --port="$port" --num-cpus=0 --temp-dir="$folder/ray" --ray-client-server-port=$((port + 1)) \
    --dashboard-host=127.0.0.1 --dashboard-port="$dashboard_port"
  await head
  # A folder of its own for each, as on machines of their own: nodes that unpack a job's working directory in the
  # same folder take it from under each other's processes.
  for node in worker-1 worker-2; do
    start "$node" --address="127.0.0.1:$port" --num-cpus="$worker_cpus" --temp-dir="$folder/${node/worker/ray}"
  done
  await worker-1
  await worker-2
  echo "cluster:   head and 2 workers with $worker_cpus CPUs each; logs in $folder"
  echo "dashboard: http://127.0.0.1:$dashboard_port (token: $RAY_AUTH_TOKEN_PATH)"
  echo "next:      cluster/local.sh submit --set dataset.root=/DATA --output DIR"
}

submit() {
  local arguments=() argument
  # The job runs in an unpacked copy of the working directory: a relative output would be lost with it.
  while [ $# -gt 0 ]; do
    argument=$1
    shift
    case $argument in
      --output)
        arguments+=(--output "$(absolute "${1-}")")
        [ $# -eq 0 ] || shift
        ;;
      --output=*) arguments+=("--output=$(absolute "${argument#--output=}")") ;;
      *) arguments+=("$argument") ;;
    esac
  done
  running head || fail "no cluster runs in $folder; start it with cluster/local.sh up"
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  exec ray job submit --address "http://127.0.0.1:$dashboard_port" --working-dir . \
    -- cvgl-ray train ${arguments[@]+"${arguments[@]}"}
}

absolute() {
  case $1 in
    /* | *://* | "") printf '%s' "$1" ;;
    *) printf '%s' "$PWD/$1" ;;
  esac
}

# The workers before their head, so that none reports its loss.
down() {
  stop worker-2 worker-1
  stop head
  rm -f "$folder"/*.pid
  echo "cluster:   stopped; logs stay in $folder"
}

# Ends nodes together; one that has not ended after 30 s is killed.
stop() {
  local node waited=0
  for node in "$@"; do
    ! running "$node" || kill -TERM "$(cat "$folder/$node.pid")" 2>/dev/null || true # it may have ended by now
  done
  for node in "$@"; do
    while running "$node"; do
      [ $((waited += 1)) -le 150 ] || kill -KILL "$(cat "$folder/$node.pid")" || true
      sleep 0.2
    done
  done
}

case ${1-} in
  up | submit | down)
    command -v ray >/dev/null || fail "there is no \`ray\` on the PATH; activate the project's environment"
    "$@"
    ;;
  *) fail "found ${1:-no command}, expected up, submit or down" ;;
esac
