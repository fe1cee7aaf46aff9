# Kills what its parent left behind. It reads lines from the parent:
#   + PID SIGNAL   a process to end, and how
#   - PID          that process has ended
#   d PATH         a directory to remove at the end
# The end of its input means that the parent is gone, however it died.
trap '' INT TERM HUP QUIT
processes=
while read -r op first second; do
    case $op in
    +) processes="$processes $first:$second" ;;
    -)
        kept=
        for entry in $processes; do
            [ "${entry%%:*}" = "$first" ] || kept="$kept $entry"
        done
        processes=$kept
        ;;
    d) set -- "$@" "$first" ;;
    esac
done
for entry in $processes; do
    kill -"${entry##*:}" "${entry%%:*}" 2>/dev/null
done
for round in 1 2 3 4 5 6 7 8 9 10; do
    alive=
    for entry in $processes; do
        if kill -0 "${entry%%:*}" 2>/dev/null; then alive="$alive ${entry%%:*}"; fi
    done
    [ -n "$alive" ] || break
    sleep 0.3
done
[ -z "$alive" ] || kill -KILL $alive 2>/dev/null
# One that had just been started when the parent died was not told of.
sleep 0.3
for environ in $(grep -lzxF "$mark" /proc/[0-9]*/environ 2>/dev/null); do
    late=${environ#/proc/}
    kill -KILL "${late%/environ}" 2>/dev/null
done
[ $# -eq 0 ] || rm -rf -- "$@"
