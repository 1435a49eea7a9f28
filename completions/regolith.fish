# fish completion for regolith. Commands and options are asked of the program, so they are those of the one installed.
function __regolith_commands
    regolith help 2>/dev/null | string match -rg '^  ([a-z][a-z-]*) +(.*)$' | paste - -
end

function __regolith_options
    set -l words (commandline -opc)
    regolith help $words[2] 2>/dev/null | string replace -rf '^  (?:-., |    )(--[a-z][a-z-]*)(?: [^ ]+)? +(.*)$' '$1\t$2'
end

function __regolith_first
    test (count (commandline -opc)) -eq 1
end

complete -c regolith -f
complete -c regolith -n __regolith_first -a '(__regolith_commands)'
complete -c regolith -n 'not __regolith_first' -a '(__regolith_options)'
complete -c regolith -n '__fish_seen_subcommand_from run check' -k -a '(__fish_complete_suffix .lua)'
complete -c regolith -n '__fish_seen_subcommand_from exec' -a '(__fish_complete_command)'
complete -c regolith -n '__fish_seen_subcommand_from image' -a 'pull push import export ls inspect verify rm gc'
complete -c regolith -n '__fish_seen_subcommand_from volume' -a 'ls create rm'
complete -c regolith -n '__fish_seen_subcommand_from key' -a 'add ls revoke topup'
complete -c regolith -n '__fish_seen_subcommand_from cost' -l by -xa 'key tier op tag hour day'
