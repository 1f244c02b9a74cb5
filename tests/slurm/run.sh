#!/usr/bin/env bash
# Runs the smoke preset on a Slurm of one node as docs/howto/cluster.md says, and in another clone without Slurm, and
# compares the results to the bit: the table is on stdout, the progress on stderr. Not part of `make test`, as it takes
# half an hour on two cores.
#
#   sudo tests/slurm/run.sh [TARGET ...]       (default: everything that `make figures PRESET=smoke` makes)
#
# For Debian and Ubuntu, on a machine without a Slurm of its own. Installs slurmctld, slurmd and munge by apt-get, which
# stay installed. Runs what is committed. Daemons, clones and environments are gone at the end.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
conf=/etc/slurm/slurm.conf  # where `srun` looks, inside a job too

fail() { echo "error: $1" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "expected root, which the daemons need: sudo tests/slurm/run.sh"
# before anything is started or, at the end, cancelled: those could be jobs of somebody's cluster
[ ! -e $conf ] && [ ! -L $conf ] && [ -z "${SLURM_CONF:-}" ] ||
  fail "expected a machine without a Slurm of its own, found $conf or the variable SLURM_CONF"

work=$(mktemp -d /var/tmp/deda-fp-slurm.XXXXXX)

stop() {
  status=$?
  trap '' INT TERM
  if [ $status != 0 ]; then
    find "$work" -path '*/slurm_logs/*' -name '*.log' -exec tail -n 40 {} + 2>/dev/null | cut -c 1-300 >&2 || true
    tail -n 20 "$work"/*.log 2>/dev/null | cut -c 1-300 >&2 || true
  fi
  if [ "$(readlink $conf)" = "$work/slurm.conf" ]; then
    scancel --user root 2>/dev/null || true
    for _ in $(seq 30); do [ -z "$(squeue -h 2>/dev/null)" ] && break; sleep 1; done
    rm $conf
  fi
  for daemon in slurmd slurmctld munged; do
    pid=$(cat "$work/$daemon.pid" 2>/dev/null) || continue
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 30); do kill -0 "$pid" 2>/dev/null || break; sleep 1; done
  done
  cd / && rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM

# --- a Slurm of this machine alone, without accounting
for program in munged slurmctld slurmd sbatch; do
  command -v $program >/dev/null && continue
  apt-get update -qq && apt-get install -y -qq --no-install-recommends munge slurmctld slurmd slurm-client
  break
done
name=$(hostname -s) cores=$(getconf _NPROCESSORS_ONLN) memory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
chmod 755 "$work" && mkdir "$work/state" "$work/spool" && mkdir -m 700 "$work/munge"
(umask 077; head -c 1024 /dev/urandom > "$work/munge/key")
munged --force --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/munged.pid" \
  --log-file="$work/munge/log" --seed-file="$work/munge/seed"
cat > "$work/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$name(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthInfo=socket=$work/munge/socket
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
ReturnToService=2
NodeName=$name NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=all Nodes=$name Default=YES MaxTime=INFINITE State=UP
CONF
mkdir -p /etc/slurm && ln -s "$work/slurm.conf" $conf
slurmctld
slurmd
for _ in $(seq 60); do sinfo -h -o %T 2>/dev/null | grep -q idle && break; sleep 1; done
sinfo -h -o %T | grep -q idle || fail "the node did not start"
echo "$(slurmd -V), one node with $cores cores"

# --- as a user does it, in two fresh clones
clone() {
  git clone -q "$root" "$work/$1"
  cd "$work/$1"
  make setup >/dev/null 2>"$work/setup.log"
}
clone slurm
.venv/bin/python -m pip install -q snakemake-executor-plugin-slurm==2.8.0 2>>"$work/setup.log"
SECONDS=0
.venv/bin/python -m snakemake --profile profiles/slurm-no-accounting --config preset=smoke \
  --set-threads inference="$cores" -- "$@" 2>&1 | tee "$work/snakemake.log" >&2
echo "$(grep -c 'has been submitted with SLURM jobid' "$work/snakemake.log") jobs on Slurm: $((SECONDS / 60)) min $((SECONDS % 60)) s"
clone local
SECONDS=0
.venv/bin/python -m snakemake --cores all --config preset=smoke -- "$@" >"$work/snakemake.log" 2>&1
echo "without Slurm: $((SECONDS / 60)) min $((SECONDS % 60)) s"
.venv/bin/python tests/slurm/compare.py "$work/slurm/results/smoke" "$work/local/results/smoke"
