# SPDX-License-Identifier: Apache-2.0
# fish completion for cache-ctl(1); names come from the cache itself when the daemon answers.

function __cache_ctl_references
    cache-ctl ls --output json 2>/dev/null | sed -n 's/^ *"references": *\[ *$//; s/^ *"\([^":]*[/:][^"]*\)",\{0,1\}$/\1/p'
end

complete -c cache-ctl -f
complete -c cache-ctl -s s -l socket -r -F -d 'control socket of the daemon'
complete -c cache-ctl -s o -l output -x -a 'table json' -d 'for people or for programs'
complete -c cache-ctl -s h -l help -d help
complete -c cache-ctl -l version -d 'the version'

complete -c cache-ctl -n __fish_use_subcommand -a pull -d 'bring an artifact onto this node'
complete -c cache-ctl -n __fish_use_subcommand -a ls -d 'what is in the cache'
complete -c cache-ctl -n __fish_use_subcommand -a inspect -d 'all about one artifact'
complete -c cache-ctl -n __fish_use_subcommand -a rm -d 'take an artifact out of the cache'
complete -c cache-ctl -n __fish_use_subcommand -a prune -d 'drop what interrupted pulls left for the next try'
complete -c cache-ctl -n __fish_use_subcommand -a mount -d 'mount an artifact of the cache read-only'
complete -c cache-ctl -n __fish_use_subcommand -a umount -d 'undo a mount'
complete -c cache-ctl -n __fish_use_subcommand -a verify -d 'read what is stored and compare digests'
complete -c cache-ctl -n __fish_use_subcommand -a status -d 'is the daemon well, and what is it doing'
complete -c cache-ctl -n __fish_use_subcommand -a events -d 'what happened on this node'
complete -c cache-ctl -n __fish_use_subcommand -a health -d 'does the daemon answer, and is it ready'

complete -c cache-ctl -n '__fish_seen_subcommand_from pull inspect rm mount verify' -a '(__cache_ctl_references)' -d reference
complete -c cache-ctl -n '__fish_seen_subcommand_from mount umount' -a '(__fish_complete_directories)'
complete -c cache-ctl -n '__fish_seen_subcommand_from pull' -l policy -x -a 'Always IfNotPresent Never' -d 'when to ask the registry'
complete -c cache-ctl -n '__fish_seen_subcommand_from pull' -l platform -x -d 'what to take from an index'
complete -c cache-ctl -n '__fish_seen_subcommand_from pull' -l username -x -d 'who asks'
complete -c cache-ctl -n '__fish_seen_subcommand_from pull' -l password-stdin -d 'read the password from standard input'
complete -c cache-ctl -n '__fish_seen_subcommand_from pull' -l background -d 'nobody waits for it'
complete -c cache-ctl -n '__fish_seen_subcommand_from pull' -l quiet -d 'print only the digest'
complete -c cache-ctl -n '__fish_seen_subcommand_from ls' -l full -d 'whole digests'
complete -c cache-ctl -n '__fish_seen_subcommand_from pull mount' -l include -x -d 'only these files'
complete -c cache-ctl -n '__fish_seen_subcommand_from pull mount' -l exclude -x -d 'not these files'
complete -c cache-ctl -n '__fish_seen_subcommand_from mount' -l sub-path -x -d 'only this directory of the artifact'
complete -c cache-ctl -n '__fish_seen_subcommand_from inspect mount' -l platform -x -d 'which one, when the name stands for several'
complete -c cache-ctl -n '__fish_seen_subcommand_from rm' -l platform -x -d 'the name for this platform only'
complete -c cache-ctl -n '__fish_seen_subcommand_from mount' -l exec -d 'programs in it may be run'
complete -c cache-ctl -n '__fish_seen_subcommand_from events' -l follow -d 'go on with what happens from now on'
complete -c cache-ctl -n '__fish_seen_subcommand_from events' -l last -x -d 'how many old ones first'
complete -c cache-ctl -n '__fish_seen_subcommand_from events' -l pull -x -d 'only those of this pull'
complete -c cache-ctl -n '__fish_seen_subcommand_from events' -l pod -x -d 'only those of this pod'
complete -c cache-ctl -n '__fish_seen_subcommand_from health' -l ready -d 'fail when it is not ready'
