#ifndef REGOLITH_NET_URL_H
#define REGOLITH_NET_URL_H

/* URLs, by curl's own parser, so that what is checked is what is connected to. */

/* Joins base and an absolute or relative reference as RFC 3986 says. The result is the caller's.
 * NULL: not a URL. */
char *url_join(const char *base, const char *ref);
/* One part of a URL, owned by the caller; NULL = absent or not a URL. what: "scheme", "host",
 * "port" (the scheme's own where none is said), "user" or "password". */
char *url_part(const char *url, const char *what);
char *url_scheme(const char *url);
char *url_host(const char *url);
/* value, percent-encoded for a query; the caller's. */
char *url_escape(const char *value);

#endif
