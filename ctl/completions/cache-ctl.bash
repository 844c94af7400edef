# SPDX-License-Identifier: Apache-2.0
# bash completion for cache-ctl(1); names come from the cache itself when the daemon answers.
# shellcheck shell=bash

_cache_ctl_names() {
    cache-ctl ls --output json 2>/dev/null |
        sed -n 's/^ *"references": *\[ *$//; s/^ *"\([^":]*[/:][^"]*\)",\{0,1\}$/\1/p'
}

# Sets COMPREPLY. readline splits words at ':', of which references have many: the whole word is looked at here, and
# readline gets what follows its last ':'.
_cache_ctl_references() {
    local cur=$1 whole=${COMP_LINE-}

    whole=${whole:0:${COMP_POINT:-0}}
    whole=${whole##* }
    [[ $whole == *"$cur" ]] || whole=$cur
    mapfile -t COMPREPLY < <(compgen -W "$(_cache_ctl_names)" -- "$whole")
    if [[ $whole == *:* && $COMP_WORDBREAKS == *:* && $whole != "$cur" ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${whole%"${whole##*:}"}"}")
    fi
}

_cache_ctl() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command='' word
    local commands='pull ls inspect rm prune mount umount verify status events health'
    local global='--socket --output --help --version'

    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        [[ -z $command && " $commands " == *" $word "* ]] && command=$word
    done
    case $prev in
    --output | -o) mapfile -t COMPREPLY < <(compgen -W 'table json' -- "$cur") && return ;;
    --socket | -s) mapfile -t COMPREPLY < <(compgen -f -- "$cur") && return ;;
    --policy) mapfile -t COMPREPLY < <(compgen -W 'Always IfNotPresent Never' -- "$cur") && return ;;
    esac
    if [[ -z $command ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands $global" -- "$cur")
        return
    fi
    if [[ $cur == -* ]]; then
        case $command in
        pull) global+=' --policy --platform --include --exclude --username --password-stdin --background --quiet' ;;
        ls) global+=' --full' ;;
        inspect | rm) global+=' --platform' ;;
        mount) global+=' --sub-path --platform --include --exclude --exec' ;;
        events) global+=' --follow --last --pull --pod' ;;
        health) global+=' --ready' ;;
        esac
        mapfile -t COMPREPLY < <(compgen -W "$global" -- "$cur")
        return
    fi
    case $command in
    umount) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
    inspect | rm | verify | pull) _cache_ctl_references "$cur" ;;
    mount)
        _cache_ctl_references "$cur"
        mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -d -- "$cur")
        ;;
    esac
}

complete -F _cache_ctl cache-ctl
