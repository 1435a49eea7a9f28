#ifndef REGOLITH_ENGINE_LOCAL_WARDEN_H
#define REGOLITH_ENGINE_LOCAL_WARDEN_H

#define WARDEN_NAME "warden"

/* The helper that makes boxes and cleans up after them: the main function of helper.h. */
int warden_main(int sock);

#endif
