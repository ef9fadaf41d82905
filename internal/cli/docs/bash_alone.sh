
# What cobra's script uses of the package bash-completion, in short, for hosts
# where it is not installed.
__mobileops_init_completion()
{
    COMPREPLY=()
    if declare -F _get_comp_words_by_ref >/dev/null 2>&1; then
        _get_comp_words_by_ref "$@" cur prev words cword
        return
    fi
    # bash breaks words at = and :, which are part of the words meant here: what
    # follows without a space belongs to the word before it.
    local i word stripped rest=${COMP_LINE:0:COMP_POINT}
    words=() cword=0
    for ((i = 0; i <= COMP_CWORD; i++)); do
        stripped=${rest#"${rest%%[![:space:]]*}"}
        word=${COMP_WORDS[i]}
        ((i == COMP_CWORD)) && word=$stripped
        if ((i > 0)) && [[ $stripped != "$rest" ]]; then
            ((++cword))
        fi
        words[cword]+=$word
        rest=${stripped#"$word"}
    done
    cur=${words[cword]}
    prev=
    ((cword > 0)) && prev=${words[cword - 1]}
    return 0
}

__mobileops_filedir()
{
    if declare -F _filedir >/dev/null 2>&1; then
        _filedir "$@"
        return
    fi
    compopt -o filenames 2>/dev/null
    local ext
    case ${1-} in
        '') mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        -d) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
        *)
            mapfile -t COMPREPLY < <(
                compgen -d -- "$cur"
                local IFS='|'
                for ext in $1; do
                    compgen -f -X "!*.$ext" -- "$cur"
                done
            )
            ;;
    esac
}
