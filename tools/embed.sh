#!/bin/sh
# Prints an assembler file that carries the given files (Lua and pages) and the table embedded_files that names them:
#   struct embedded_file { const char *name; const char *data; size_t len; }, ended by a NULL name.
# lua/a/b.lua is named "a/b.lua", web/page.html "page.html".
set -eu
n=0
printf '\t.section .rodata\n'
for f in "$@"; do
  name=${f#lua/}
  printf 'n%d:\t.asciz "%s"\nd%d:\t.incbin "%s"\ne%d:\t.byte 0\n' "$n" "${name#web/}" "$n" "$f" "$n"
  n=$((n + 1))
done
printf '\t.section .data.rel.ro,"aw"\n\t.balign 8\n\t.globl embedded_files\n\t.hidden embedded_files\nembedded_files:\n'
i=0
while [ "$i" -lt "$n" ]; do
  printf '\t.quad n%d, d%d, e%d - d%d\n' "$i" "$i" "$i" "$i"
  i=$((i + 1))
done
printf '\t.quad 0, 0, 0\n\t.section .note.GNU-stack,"",%%progbits\n'
