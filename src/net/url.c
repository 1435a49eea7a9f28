/* URLs by curl's URL interface. Owns nothing; every result is a fresh string. */
#include "net/url.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

static char *take(char *curls)
{
  char *own = curls ? xstrdup(curls) : NULL;
  curl_free(curls);
  return own;
}

static char *part(const char *url, CURLUPart what)
{
  char *text = NULL;
  CURLU *u = curl_url();
  if (u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK)
    curl_url_get(u, what, &text, what == CURLUPART_PORT ? CURLU_DEFAULT_PORT : 0);
  curl_url_cleanup(u);
  return take(text);
}

char *url_part(const char *url, const char *what)
{
  static const struct {
    const char *name;
    CURLUPart part;
  } parts[] = {{"scheme", CURLUPART_SCHEME},
               {"host", CURLUPART_HOST},
               {"port", CURLUPART_PORT},
               {"user", CURLUPART_USER},
               {"password", CURLUPART_PASSWORD}};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    if (strcmp(parts[i].name, what) == 0) return part(url, parts[i].part);
  return NULL;
}

char *url_join(const char *base, const char *ref)
{
  char *text = NULL;
  CURLU *u = curl_url();
  if (u && curl_url_set(u, CURLUPART_URL, base, 0) == CURLUE_OK &&
      curl_url_set(u, CURLUPART_URL, ref, 0) == CURLUE_OK)
    curl_url_get(u, CURLUPART_URL, &text, 0);
  curl_url_cleanup(u);
  return take(text);
}

char *url_scheme(const char *url)
{
  return part(url, CURLUPART_SCHEME);
}

char *url_host(const char *url)
{
  return part(url, CURLUPART_HOST);
}

char *url_escape(const char *value)
{
  return take(curl_easy_escape(NULL, value, 0));
}
