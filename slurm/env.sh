# What depends on the cluster and not on the run. Every script in this folder reads it; a variable of the same name in the
# environment wins, so one file can serve a project and `TNR_NODES=4 slurm/stage2.sh …` one job. Empty: Slurm's default.

: "${TNR_ACCOUNT:=}"          # --account
: "${TNR_PARTITION:=}"        # --partition
: "${TNR_QOS:=}"              # --qos
: "${TNR_CONSTRAINT:=}"       # --constraint, such as h200
: "${TNR_NODES:=1}"           # nodes of a training job
: "${TNR_GPUS_PER_NODE:=}"    # GPUs of a node; empty: none are asked for
: "${TNR_RANKS_PER_NODE:=}"   # empty: one per GPU, or one per node without GPUs
: "${TNR_CPUS_PER_RANK:=}"    # --cpus-per-task
: "${TNR_MEM:=}"              # --mem, per node
: "${TNR_TIME:=}"             # --time of every job, such as 12:00:00; empty: the script's own
: "${TNR_GRACE:=120}"         # seconds before the time limit at which the ranks write a checkpoint and the job is requeued
: "${TNR_CACHE_TASKS:=4}"     # jobs that the teachers' pass is shared among
: "${TNR_MAX_CRASHES:=3}"     # times that a job whose rank was killed, or that had no checkpoint at the time limit, is requeued; 0: never
: "${TNR_LOGS:=runs/slurm}"   # folder of the logs, on a file system that all nodes share

: "${TNR_MODULES:=}"          # modules to load in the job, separated by spaces
: "${TNR_CONTAINER:=}"        # image in which the ranks run, with tnr installed in it: `apptainer exec --nv IMAGE tnr …`

# For what the variables above do not say:
sbatch_options=()             # further options of every sbatch, such as (--reservation=night)
srun_options=()               # further options of every srun, such as (--container-image=… --container-mounts=…)
container=()                  # another container command than apptainer's, such as (singularity exec --nv image.sif)
