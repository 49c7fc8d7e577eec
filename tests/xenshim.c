/*
 * Answers the few hypervisor calls that oxenstored, C xenstored and `xl create -n` make, so that they run without Xen.
 *
 * Preloaded; clients on the Unix socket then count as domain 0 and get the full protocol. Domains are never
 * introduced, but every domid exists, because the C daemon asks about each one that a permission names.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenevtchn.h>
#include <xengnttab.h>

static char page[2 * 4096] __attribute__((aligned(4096)));
#define HANDLE(type) ((type *)page)

xc_interface *xc_interface_open(xentoollog_logger *l, xentoollog_logger *d, unsigned f) { return HANDLE(xc_interface); }
int xc_interface_close(xc_interface *x) { return 0; }

int xc_domain_getinfo(xc_interface *x, uint32_t first, unsigned int max, xc_dominfo_t *info)
{
    if (!max) return 0;
    memset(info, 0, sizeof *info);
    info->domid = first;
    info->running = 1;
    return 1;
}

int xc_domain_getinfolist(xc_interface *x, uint32_t first, unsigned int max, xc_domaininfo_t *info)
{
    if (!max) return 0;
    memset(info, 0, sizeof *info);
    info->domain = first;
    info->flags = XEN_DOMINF_running;
    return 1;
}

xengnttab_handle *xengnttab_open(xentoollog_logger *l, unsigned f) { return HANDLE(xengnttab_handle); }
int xengnttab_close(xengnttab_handle *g) { return 0; }
int xengnttab_set_max_grants(xengnttab_handle *g, uint32_t n) { return 0; }
void *xengnttab_map_grant_ref(xengnttab_handle *g, uint32_t d, uint32_t r, int p) { return page; }
int xengnttab_unmap(xengnttab_handle *g, void *a, uint32_t n) { return 0; }

xenevtchn_handle *xenevtchn_open(xentoollog_logger *l, unsigned f) { return HANDLE(xenevtchn_handle); }
xenevtchn_handle *xenevtchn_fdopen(xentoollog_logger *l, int fd, unsigned f) { return HANDLE(xenevtchn_handle); }
int xenevtchn_close(xenevtchn_handle *e) { return 0; }
int xenevtchn_notify(xenevtchn_handle *e, evtchn_port_t p) { return 0; }
int xenevtchn_unbind(xenevtchn_handle *e, evtchn_port_t p) { return 0; }
int xenevtchn_unmask(xenevtchn_handle *e, evtchn_port_t p) { return 0; }
xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *e) { return -1; }
xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *e, unsigned int v) { return 1; }
xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *e, uint32_t d, evtchn_port_t p) { return 2; }
xenevtchn_port_or_error_t xenevtchn_bind_unbound_port(xenevtchn_handle *e, uint32_t d) { return 3; }

/* What xl asks before it reads a domain's file: a machine that can do everything, with nothing on it. */
int xc_version(xc_interface *x, int command, void *answer)
{
    static const size_t sizes[] = {
        [XENVER_extraversion] = sizeof(xen_extraversion_t),
        [XENVER_compile_info] = sizeof(xen_compile_info_t),
        [XENVER_capabilities] = sizeof(xen_capabilities_info_t),
        [XENVER_changeset] = sizeof(xen_changeset_info_t),
        [XENVER_platform_parameters] = sizeof(xen_platform_parameters_t),
        [XENVER_commandline] = sizeof(xen_commandline_t),
    };
    if (command >= 0 && command < (int)(sizeof sizes / sizeof *sizes) && answer) memset(answer, 0, sizes[command]);
    return command == XENVER_version ? 4 << 16 | 17 : command == XENVER_pagesize ? 4096 : 0;
}

int xc_physinfo(xc_interface *x, xc_physinfo_t *info)
{
    memset(info, 0, sizeof *info);
    info->capabilities = XEN_SYSCTL_PHYSCAP_hvm | XEN_SYSCTL_PHYSCAP_pv | XEN_SYSCTL_PHYSCAP_hap;
    info->nr_cpus = info->nr_nodes = 16;
    info->max_cpu_id = info->max_node_id = 15;
    return 0;
}

int xc_get_max_cpus(xc_interface *x) { return 16; }
long xc_sharing_freed_pages(xc_interface *x) { return 0; }
long xc_sharing_used_frames(xc_interface *x) { return 0; }

/* A real descriptor that never becomes readable, since both daemons poll it. */
int xenevtchn_fd(xenevtchn_handle *e)
{
    static int fd = -1;
    return fd < 0 ? fd = eventfd(0, EFD_CLOEXEC) : fd;
}

/* oxenstored insists on raising its limit of open files, which takes a capability that containers lack. */
int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit) { return 0; }

/* What the kernel says of domain 0's own store port and page. */
static int stand_in(const char *path)
{
    int port = strstr(path, "xsd_port") != NULL, fd;

    if (!port && !strstr(path, "xsd_kva")) return -1;
    fd = memfd_create("xsd", MFD_CLOEXEC);
    if (port ? pwrite(fd, "1\n", 2, 0) != 2 : ftruncate(fd, sizeof page)) return -1;
    return fd;
}

#define OPEN(name)                                                    \
    int name(const char *path, int flags, ...)                        \
    {                                                                 \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name); \
        int fd = stand_in(path);                                      \
        mode_t mode = 0;                                              \
        if (flags & (O_CREAT | O_TMPFILE)) {                          \
            va_list rest;                                             \
            va_start(rest, flags);                                    \
            mode = va_arg(rest, mode_t);                              \
            va_end(rest);                                             \
        }                                                             \
        return fd >= 0 ? fd : real(path, flags, mode);                \
    }
OPEN(open)
OPEN(open64)
