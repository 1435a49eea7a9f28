#ifndef REGOLITH_BASE_PLAIN_H
#define REGOLITH_BASE_PLAIN_H

/* Makes a stranger's text one plain line, in place: "?" for each byte of a control character (C0,
 * DEL and C1, which terminals obey) and for each that is no UTF-8. */
void plain(char *text);

#endif
