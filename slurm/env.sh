# What depends on the cluster and not on the run. Every script in this folder reads it, and after it your own file, where there is
# one: slurm/env.local.sh (git does not see it), or what TNR_ENV names, one for each of several clusters. A variable of the same
# name in the environment wins over both: `TNR_NODES=4 slurm/stage2.sh …`. Empty: Slurm's default.
#
# Those marked * also exist for one kind of job: TNR_TIME_stage2, TNR_PARTITION_prepare, TNR_NODES_finetune, with the names prepare,
# post_train, finetune, cache, stage1, stage2, evaluate, report, doctor, … of the scripts; or for one job: TNR_TIME_stage2_4.

# The job.
TNR_ACCOUNT=                # * --account
TNR_PARTITION=              # * --partition
TNR_QOS=                    # * --qos
TNR_CONSTRAINT=             # * --constraint, such as h200
TNR_NODES=1                 # * nodes of a training job
TNR_GPUS_PER_NODE=          # * --gpus-per-node: GPUs of a node, such as 4 or a100:4; empty: none are asked for
TNR_GRES=                   # * --gres instead, such as gpu:4, where the cluster wants that
TNR_GPUS_PER_TASK=          # * --gpus-per-task instead, with --gpu-bind=none; needs TNR_RANKS_PER_NODE
TNR_RANKS_PER_NODE=         # * empty: one per GPU, or one per node without GPUs
TNR_CPUS_PER_RANK=          # * --cpus-per-task
TNR_MEM=                    # * --mem, per node
TNR_TIME=                   # * --time, such as 12:00:00; empty: the script's own
TNR_CACHE_TASKS=4           # jobs that the teachers' pass is shared among
TNR_ARRAY_LIMIT=            # tasks of an array that may run at a time; empty: all
TNR_LOGS=runs/slurm         # folder of the logs, on a file system that all nodes share
TNR_CHECK=1                 # 0: submit without looking first at the configuration, the inputs and what is complete

# How a job ends and resumes.
TNR_GRACE=120               # seconds before the time limit at which the ranks write a checkpoint and the job is requeued
TNR_SIGNAL=USR2             # what Slurm sends then; NCCL may have a use of its own for USR1
TNR_MAX_CRASHES=3           # times that a job whose rank was killed, or that had no checkpoint at the time limit, is requeued; 0: never
TNR_RESUBMIT=               # 1: a job submits itself again instead of being requeued, for clusters that requeue nothing

# The software, on the machine where you submit as in the jobs, in this order:
TNR_MODULES=                # modules to load, separated by spaces
                            # then .venv beside this folder, where there is one
TNR_SETUP=                  # file to source, such as one with `. ~/miniforge3/bin/activate tnr` or `export NCCL_SOCKET_IFNAME=ib0`
TNR_CONTAINER=              # image in which the ranks run, with tnr installed in it: `apptainer exec --nv IMAGE tnr …`
TNR_MASTER_SUFFIX=          # what follows the first node's name where the ranks meet, such as i on JUWELS; MASTER_ADDR wins

# For what the variables above do not say:
sbatch_options=()           # further options of every sbatch, such as (--exclusive --mail-type=END,FAIL --time-min=1:00:00)
srun_options=()             # further options of every srun, such as (--container-image=… --container-mounts=…)
container=()                # another container command than apptainer's, such as (singularity exec --nv image.sif)
login=()                    # how Python starts where you submit, if otherwise than in jobs, such as (enroot start tnr)
