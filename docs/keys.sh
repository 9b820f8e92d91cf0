#!/bin/bash
# keys.sh: docs/configuration.md, its tables written anew from what the programs print by --help. `make reference` runs it.
#   docs/keys.sh          the page on stdout
cd "$(dirname "$0")/.." || exit 2
mark='<!-- from here on the page is written by `make reference` -->'
programs='connector gate scene chat dbwriter'      # those with keys of their own; the common ones are in each

# table PROGRAM HEADING: the keys below that line of its --help
table() {
	printf '\n| key | value | default | says |\n|---|---|---|---|\n'
	build/bin/"$1" --help | awk -v heading="$2" '
	/^[^ ].*:$/ { on = $0 == heading; next }
	on && /^  [^ ]/ {
		key = $1; sub(/^ *[^ ]+ +/, ""); value = $0; fallback = ""
		if (sub(/, must be given$/, "", value)) fallback = "must be given"
		else if (match(value, /, default .*$/)) {
			fallback = "`" substr(value, RSTART + 10) "`"; value = substr(value, 1, RSTART - 1)
		}
		gsub(/\.\./, " to ", value)
	}
	on && /^      / { sub(/^ +/, ""); gsub(/\|/, "\\|"); print "| `" key "` | " value " | " fallback " | " $0 " |" }'
}

sed "/^$mark\$/q" docs/configuration.md
printf '\n## All processes\n'
table connector 'Keys of the configuration:'
printf '\n## Each service\n\n`NAME` is its name, `role.threads`.\n'
table connector 'Keys of each service:'
for program in $programs; do
	printf '\n## %s\n' "$program"
	table "$program" 'Keys of this service:'
done
