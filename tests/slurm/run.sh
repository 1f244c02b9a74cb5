#!/usr/bin/env bash
# Runs the smoke preset on a Slurm of one node, by the command of docs/howto/cluster.md, and once more without Slurm, and
# compares: histories but for wall seconds, weights, and tables. Not part of `make test`.
#
#   sudo tests/slurm/run.sh [TARGET ...]       (default: everything that `make figures PRESET=smoke` makes)
#
# For Debian and Ubuntu: installs slurmctld, slurmd and munge by apt-get, starts them by hand, and stops them at the end.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d /var/tmp/deda-fp-slurm.XXXXXX)
targets=("$@")
conf=/etc/slurm/slurm.conf
# Before anything that is undone at the end: nobody else's jobs are to be cancelled.
[ -e $conf ] && { echo "error: expected a machine without a Slurm of its own, found $conf" >&2; exit 1; }

stop() {
  status=$?
  [ $status = 0 ] || tail -n 45 $(find "$work/slurm/.snakemake/slurm_logs" -name "*.log") "$work"/slurm*.log 2>/dev/null || true
  scancel --user "$(id -un)" 2>/dev/null || true
  for daemon in slurmd slurmctld munged; do
    [ -f "$work/$daemon.pid" ] && kill "$(cat "$work/$daemon.pid")" 2>/dev/null || true
  done
  [ "$(readlink $conf)" = "$work/slurm.conf" ] && rm $conf || true
  rm -rf "$work"
}
trap stop EXIT

command -v slurmctld slurmd munged sbatch >/dev/null || apt-get install -y -qq slurmctld slurmd slurm-client munge

# --- a Slurm of this machine alone, without accounting
name=$(hostname -s) cpus=$(nproc) memory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
mkdir -p "$work"/{state,spool,munge}
chmod 755 "$work"
dd if=/dev/urandom of="$work/munge/key" bs=1024 count=1 status=none
chmod 700 "$work/munge"; chmod 400 "$work/munge/key"
munged --force --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/munged.pid" \
  --log-file="$work/munge/log" --seed-file="$work/munge/seed"
cat > "$work/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$name(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
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
MinJobAge=300
NodeName=$name NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=all Nodes=$name Default=YES MaxTime=INFINITE State=UP
CONF
mkdir -p /etc/slurm
ln -s "$work/slurm.conf" $conf  # where `srun` inside a job looks, too
slurmctld
slurmd
for _ in $(seq 60); do sinfo -h -o %T 2>/dev/null | grep -q idle && break; sleep 1; done
sinfo

# --- two clones, one environment: the interpreter has the same path on every node
git clone -q "$root" "$work/slurm"
git clone -q "$root" "$work/local"
python=$root/.venv/bin/python
"$python" -m venv --system-site-packages "$work/venv"
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$site/locked.pth"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check snakemake-executor-plugin-slurm==2.8.0
python=$work/venv/bin/python
export OMP_NUM_THREADS=1

cd "$work/slurm"
export PYTHONPATH=$work/slurm
sed -i "s/inference=8/inference=$cpus/" profiles/slurm-no-accounting/config.yaml  # no more than the node has
SECONDS=0
"$python" -m snakemake --profile profiles/slurm-no-accounting --config preset=smoke -- "${targets[@]}"
echo "on Slurm: $SECONDS s"
cd "$work/local"
export PYTHONPATH=$work/local
SECONDS=0
"$python" -m snakemake --config preset=smoke --cores all -- "${targets[@]}" >/dev/null 2>&1
echo "without: $SECONDS s"

"$python" "$root/tests/slurm/compare.py" "$work/slurm/results/smoke" "$work/local/results/smoke"
