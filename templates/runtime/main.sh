# shellcheck shell=sh
# From here on: the call. lollypops VERB --flag value … [word …]
# shellcheck disable=SC2030,SC2031,SC2015,SC2034,SC2154,SC3045
verb=$1; shift
set -u +avx   # nothing is exported or printed because $SHELLOPTS says so
umask 077; ulimit -S -c 0
locale=${LC_ALL-}; LC_ALL=C
exec 4>&1 9>/dev/null
trap '' PIPE   # also when nobody reads what we say any more, the host is to be left as it should be
unset name path cmd secrets source user dir password value values   # whatever is exported under these names is no business of children
host='' to='' name='' step='' ssh=ssh ssh_opts='' sudo='' sudo_opts='' signal='' watcher='' several='' nested='' aside='' did='' told='' table='' chosen='' host_began='' step_began='' batch='' local_evaluation='' nix_opts='' needs='' called='' local='' password='' password_command='' turn='' prune='' rebuild=1 mark='' fresh='' quiet='' address='' build_on='' port='' identity='' jump='' host_key='' multiplex=1 socket='' go='' line_open=''
guard=1 confirm=60 limit=600 confirm_host='' keep_failed='' ignore='*-wait-online.service' specialisation='' back=''
flake=. config_dir=/var/src/lollypops method=auto attribute=nixosConfigurations
read_settings "${LOLLYPOPS_SET_@HASH@%"$nl"}"
programs=${LOLLYPOPS_TARGET_@HASH@-}
unset LOLLYPOPS_@HASH@ LOLLYPOPS_SH_@HASH@ LOLLYPOPS_TARGET_@HASH@ LOLLYPOPS_SET_@HASH@
take_flags() { # sets $taken to how many of the words were flags
  taken=$#
  while [ $# -gt 0 ]; do
    case $1 in
      --host) host=$2; shift ;;
      --to) to=$2; shift ;;
      --step) step=$2; shift ;;
      --ssh) split deployment.ssh.command "$2"; ssh=$quoted; shift ;;
      --ssh-opt) quote "$2"; ssh_opts="$ssh_opts${ssh_opts:+ }$quoted"; shift ;;
      --port) port=$2; shift ;;
      --identity) identity=$2; shift ;;
      --jump) jump=$2; shift ;;
      --host-key) host_key=$2; shift ;;
      --no-multiplex) multiplex='' ;;
      --sudo) split deployment.sudo.command "$2"; sudo=$quoted; shift ;;
      --sudo-opt) quote "$2"; sudo_opts="$sudo_opts${sudo_opts:+ }$quoted"; shift ;;
      --password-command) password_command=$2; shift ;;
      --local) local=1 ;;
      --prune) prune=1 ;;
      --no-rebuild) rebuild='' ;;   # none follows in a whole deployment
      --flake) flake=$2; shift ;;
      --attribute) attribute=$2; shift ;;
      --nix-opt) quote "$2"; nix_opts="$nix_opts${nix_opts:+ }$quoted"; shift ;;
      --config-dir) config_dir=$2; shift ;;
      --method) method=$2; shift ;;
      --local-evaluation) local_evaluation=1 ;;
      --build-on) build_on=$2; shift ;;   # local, or a build host; otherwise on the target
      --needs) needs="$needs $2"; shift ;;   # a store path, and =DRV^OUTPUT that makes it
      --no-guard) guard='' ;;
      --confirm-timeout) confirm=$2; shift ;;
      --activation-timeout) limit=$2; shift ;;
      --confirm-host) confirm_host=$2; shift ;;
      --keep-failed-units) keep_failed=1 ;;
      --ignore-units) ignore=$2; shift ;;
      --specialisation) specialisation=$2; shift ;;
      --called) called=$2; shift ;;
      --table) table=1 ;;   # the hosts of a `begin` stand on stdin, one a line with its flags
      --chosen) chosen=1 ;;
      --) shift; break ;;
      --*) refuse "$verb has no option $1" ;;
      *) break ;;
    esac
    shift
  done
  taken=$((taken - $#))
}
take_flags "$@"; shift $taken
# A flake that is told by a path is beside the Taskfile, also where that is part of another.
case $flake in .) flake=${TASKFILE_DIR:-.} ;; ./* | ../*) flake=${TASKFILE_DIR:-.}/$flake ;; esac
fleet="$flake $attribute ${TASKFILE##*/}"   # whatever is deployed from this time; a shard's file has a name of its own
[ -z "$LOLLYPOPS_FLAKE" ] || flake=$LOLLYPOPS_FLAKE
quote "$flake"; flake_q=$quoted
find_run
name=$TASK   # of the list of hosts, where there are several
trap 'on_signal INT' INT; trap 'on_signal TERM' TERM; trap 'on_signal HUP' HUP; trap on_watcher USR1; trap 'on_watcher ALRM' ALRM

case $verb in
  begin | awake | wave | end | selected | source | prebuild | stop) "verb_$verb" "$@" ;;
  start | 'done' | ended) "verb_$verb" "$@" ;;   # of a task that is the user's own
  ready) step=${step:-ready}; called_by_name; make_run; read_mark; outcome='' at='' why=''; [ ! -e "$run/stop" ] || { mark interrupted 'before it began'; exit 130; }
    watch "$LOLLYPOPS_TIMEOUT"; trap leave EXIT; [ -z "$to" ] || connect; realise ;;   # for such a task
  broken) step=evaluation; begin_step; trap leave EXIT; fail failed "$@" ;;
  check-vars | deploy-flake | deploy-secrets | rebuild | gc | exec)
    step=$verb asked=''
    case $TASK in "$host:"* | *":$host:"*) asked=${TASK##*:} ;; esac
    case $verb/$asked in   # calls that tell by the task's name what they are
      deploy-secrets/check-secrets | rebuild/build | rebuild/diff | rebuild/status | rebuild/rollback | rebuild/reboot | rebuild/ssh) step=$asked ;;
    esac
    called_by_name
    begin_step
    trap leave EXIT
    connect
    realise
    case $step in
      check-vars) verb_check_vars ;;
      deploy-flake) verb_deploy_flake ;;
      deploy-secrets | check-secrets) verb_secrets "$@" ;;
      *) "verb_$step" "$@" ;;
    esac ;;
  *) refuse "there is no verb $verb" ;;
esac
