# bash completion for regolith. Commands and options are asked of the program, so they are those of the one installed.
_regolith()
{
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} cmd=${COMP_WORDS[1]} word
  local program=${COMP_WORDS[0]}
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W "$("$program" help 2>/dev/null |
      sed -n '/^commands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p') --help --version" -- "$cur")
    return
  fi
  for word in "${COMP_WORDS[@]:2:COMP_CWORD-2}"; do
    if [[ $word == -- ]]; then
      # What follows is the script's or the command's own.
      mapfile -t COMPREPLY < <(compgen -o default -- "$cur")
      return
    fi
  done
  case $prev in
    --image | -i | --default-image) mapfile -t COMPREPLY < <(compgen -W "host dir:" -- "$cur"); return ;;
    --engine | --allow-engine) mapfile -t COMPREPLY < <(compgen -W "local remote jarvisclaw" -- "$cur"); return ;;
    --network | --default-network) mapfile -t COMPREPLY < <(compgen -W "none open" -- "$cur"); return ;;
    --listen | -l) mapfile -t COMPREPLY < <(compgen -W "127.0.0.1:8080" -- "$cur"); return ;;
    --tls-cert | --tls-key | --access-log) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    --env | -e) mapfile -t COMPREPLY < <(compgen -v -- "$cur"); return ;;
    --plugin) mapfile -t COMPREPLY < <(compgen -o default -W "audit gpu-hours" -- "$cur"); return ;;
    --by) mapfile -t COMPREPLY < <(compgen -W "key tier op tag hour day" -- "$cur"); return ;;
    --allow-read | --allow-write | --state | -s) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
  esac
  if [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$("$program" help "$cmd" 2>/dev/null |
      sed -n 's/^  \(-[a-zA-Z], \|    \)\(--[a-z][a-z-]*\).*/\2/p')" -- "$cur")
    return
  fi
  case $cmd in
    run | check) mapfile -t COMPREPLY < <(compgen -f -X '!*.lua' -- "$cur"; compgen -d -- "$cur") ;;
    image) ((COMP_CWORD == 2)) && mapfile -t COMPREPLY < <(compgen -W "pull push import export ls inspect verify rm gc" -- "$cur") ;;
    volume) ((COMP_CWORD == 2)) && mapfile -t COMPREPLY < <(compgen -W "ls create rm" -- "$cur") ;;
    key) ((COMP_CWORD == 2)) && mapfile -t COMPREPLY < <(compgen -W "add ls revoke topup" -- "$cur") ;;
    exec) mapfile -t COMPREPLY < <(compgen -c -- "$cur") ;;
    help) mapfile -t COMPREPLY < <(compgen -W "$("$program" help 2>/dev/null |
      sed -n '/^commands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p')" -- "$cur") ;;
  esac
}
complete -o filenames -F _regolith regolith
