/*
 * The only program of the guest, its init: it does what lines on the console say and answers in lines of words.
 *
 *   ueid NAME              add a UEID                                  -> ueid NAME ERROR
 *   listen PORT            SMC socket; echoes what each connection says -> listening PORT ERROR
 *   connect ADDRESS PORT   SMC socket; echoes, too                      -> connected ...
 *
 * For each connection comes one line, as soon as the program has it (`unread` is there to be read at that moment):
 *
 *   accepted|connected LOCAL_PORT PEER_PORT mode=SMCD|SMCR|TCP reason=CODE peer=CODE unread=BYTES
 *   failed PEER_PORT ERROR                     connect() gave an error
 *
 * and one when it ends: `ended LOCAL_PORT PEER_PORT ERROR`. ERROR is 0 or a name such as EPROTO.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/smc.h>
#include <linux/smc_diag.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#ifndef AF_SMC
#define AF_SMC 43
#endif
#define UEID_BYTES 32
#define HOST "10.0.0.2" /* whom we play with */
#define GUEST "10.0.0.1"
#define DISCARD_PORT 9
#define MAX_LIFE_SECONDS 600

/* One write, so that lines of several processes don't mix. */
static void say(const char *format, ...)
{
	char line[256];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	if (write(STDOUT_FILENO, line, length) != length)
		_exit(1);
}

static const char *error_name(int error)
{
	return error == 0 ? "0" : strerrorname_np(error);
}

static struct sockaddr_in address_of(const char *text, int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	inet_pton(AF_INET, text, &address.sin_addr);
	return address;
}

/* --- Netlink --- */

/* Sends a request; puts the first answer into `answer`. Returns its length. */
static int ask(int protocol, struct nlmsghdr *request, void *answer, int size)
{
	int fd = socket(AF_NETLINK, SOCK_RAW, protocol);
	send(fd, request, request->nlmsg_len, 0);
	int length = recv(fd, answer, size, 0);
	close(fd);
	return length;
}

static struct nlattr *attribute(struct nlattr *first, int length, int type)
{
	for (struct nlattr *one = first; length >= NLA_HDRLEN && one->nla_len >= NLA_HDRLEN;) {
		if (one->nla_type == type)
			return one;
		length -= NLA_ALIGN(one->nla_len);
		one = (void *)((char *)one + NLA_ALIGN(one->nla_len));
	}
	return NULL;
}

struct genl_request {
	struct nlmsghdr header;
	struct genlmsghdr genl;
	struct nlattr attribute;
	char value[64];
};

/* A generic netlink command with one attribute. */
static int ask_genl(int family, int command, int type, const char *value, int length, int flags, void *answer, int size)
{
	struct genl_request request = {
		.header = { .nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN + NLA_HDRLEN + NLA_ALIGN(length)),
			    .nlmsg_type = family,
			    .nlmsg_flags = NLM_F_REQUEST | flags },
		.genl = { .cmd = command, .version = 1 },
		.attribute = { .nla_len = NLA_HDRLEN + length, .nla_type = type },
	};
	memcpy(request.value, value, length);
	return ask(NETLINK_GENERIC, &request.header, answer, size);
}

static void add_ueid(const char *name)
{
	static char answer[8192];
	struct nlmsghdr *header = (void *)answer;
	int length = ask_genl(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, SMC_GENL_FAMILY_NAME,
			      sizeof SMC_GENL_FAMILY_NAME, 0, answer, sizeof answer);
	struct nlattr *id = attribute((void *)(answer + NLMSG_LENGTH(GENL_HDRLEN)), length - NLMSG_LENGTH(GENL_HDRLEN),
				      CTRL_ATTR_FAMILY_ID);
	if (id == NULL || header->nlmsg_type == NLMSG_ERROR) {
		say("ueid %s ENOENT\n", name);
		return;
	}
	char padded[UEID_BYTES + 1];
	snprintf(padded, sizeof padded, "%-*.*s", UEID_BYTES, UEID_BYTES, name);
	uint16_t family = *(uint16_t *)((char *)id + NLA_HDRLEN);
	ask_genl(family, SMC_NETLINK_ADD_UEID, SMC_NLA_EID_TABLE_ENTRY, padded, sizeof padded, NLM_F_ACK, answer,
		 sizeof answer);
	say("ueid %s %s\n", name, error_name(-*(int *)NLMSG_DATA(header)));
}

/* --- What the kernel says of a connection --- */

static int port_of(int fd, int (*name_of)(int, struct sockaddr *, socklen_t *))
{
	struct sockaddr_in address = { 0 };
	socklen_t length = sizeof address;
	name_of(fd, (struct sockaddr *)&address, &length);
	return ntohs(address.sin_port);
}

static int local_port(int fd)
{
	return port_of(fd, getsockname);
}

static int peer_port(int fd)
{
	return port_of(fd, getpeername);
}

static const char *mode_name(int mode)
{
	return mode == SMC_DIAG_MODE_SMCD ? "SMCD" : mode == SMC_DIAG_MODE_SMCR ? "SMCR" : "TCP";
}

/* Finds the connection among all SMC sockets and says what it is. Returns whether it was among these. */
static int report_from(const char *what, int fd, struct nlmsghdr *header, int length)
{
	for (; NLMSG_OK(header, length) && header->nlmsg_type == SOCK_DIAG_BY_FAMILY; header = NLMSG_NEXT(header, length)) {
		struct smc_diag_msg *message = NLMSG_DATA(header);
		if (ntohs(message->id.idiag_sport) != local_port(fd) || ntohs(message->id.idiag_dport) != peer_port(fd))
			continue;
		struct nlattr *found = attribute((void *)(message + 1), header->nlmsg_len - NLMSG_LENGTH(sizeof *message),
						 SMC_DIAG_FALLBACK);
		struct smc_diag_fallback fallback = { 0 };
		if (found != NULL)
			memcpy(&fallback, (char *)found + NLA_HDRLEN, sizeof fallback);
		int unread = 0;
		ioctl(fd, FIONREAD, &unread);
		say("%s %d %d mode=%s reason=%08x peer=%08x unread=%d\n", what, local_port(fd), peer_port(fd),
		    mode_name(message->diag_mode), fallback.reason, fallback.peer_diagnosis, unread);
		return 1;
	}
	return 0;
}

static void report(const char *what, int fd)
{
	struct {
		struct nlmsghdr header;
		struct smc_diag_req request;
	} request = {
		.header = { .nlmsg_len = sizeof request,
			    .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			    .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.request = { .diag_family = AF_SMC, .diag_ext = 0xff },
	};
	static char answer[32768];
	int netlink = socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG);
	send(netlink, &request, sizeof request, 0);
	int length;
	do {
		length = recv(netlink, answer, sizeof answer, 0);
	} while (length > 0 && ((struct nlmsghdr *)answer)->nlmsg_type == SOCK_DIAG_BY_FAMILY &&
		 !report_from(what, fd, (void *)answer, length));
	close(netlink);
}

/* --- Connections --- */

static void echo(const char *what, int fd)
{
	static char bytes[65536];
	int local = local_port(fd), peer = peer_port(fd);
	report(what, fd);
	int length;
	while ((length = recv(fd, bytes, sizeof bytes, 0)) > 0 && send(fd, bytes, length, 0) == length)
		;
	say("ended %d %d %s\n", local, peer, error_name(length < 0 ? errno : 0));
	close(fd);
	_exit(0);
}

static void listen_at(int port)
{
	struct sockaddr_in address = address_of("0.0.0.0", port);
	int listener = socket(AF_SMC, SOCK_STREAM, 0);
	int failed = bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64);
	say("listening %d %s\n", port, error_name(failed ? errno : 0));
	if (!failed && fork() == 0) {
		for (;;) {
			int fd = accept(listener, NULL, NULL);
			if (fd >= 0 && fork() == 0)
				echo("accepted", fd);
			close(fd);
		}
	}
	close(listener);
}

static void connect_to(const char *text, int port)
{
	if (fork() != 0)
		return;
	struct sockaddr_in address = address_of(text, port);
	int fd = socket(AF_SMC, SOCK_STREAM, 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
		echo("connected", fd);
	say("failed %d %s\n", port, error_name(errno));
	_exit(0);
}

/* --- The guest --- */

static void bring_up(int fd, const char *name)
{
	struct ifreq request = { .ifr_flags = IFF_UP };
	strcpy(request.ifr_name, name);
	ioctl(fd, SIOCSIFFLAGS, &request);
}

static void set_up_network(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct ifreq request = { .ifr_name = "vec0" };
	struct sockaddr_in address = address_of(GUEST, 0), mask = address_of("255.255.255.0", 0);
	memcpy(&request.ifr_addr, &address, sizeof address);
	ioctl(fd, SIOCSIFADDR, &request);
	memcpy(&request.ifr_netmask, &mask, sizeof mask);
	ioctl(fd, SIOCSIFNETMASK, &request);
	bring_up(fd, "lo");
	bring_up(fd, "vec0");
	/* Our first frame asks for the host's Ethernet address, and so shows it ours. */
	struct sockaddr_in host = address_of(HOST, DISCARD_PORT);
	sendto(fd, "", 1, 0, (struct sockaddr *)&host, sizeof host);
	close(fd);
}

static void say_gid(void)
{
	char gid[64] = "";
	mkdir("/sys", 0755);
	mount("sys", "/sys", "sysfs", 0, NULL);
	int fd = open("/sys/class/dibs/lo/gid", O_RDONLY);
	if (read(fd, gid, sizeof gid - 1) < 0)
		say("no gid %s\n", error_name(errno));
	else
		say("gid %.36s\n", gid);
	close(fd);
}

static void power_off(int signal)
{
	(void)signal;
	reboot(RB_POWER_OFF);
}

int main(void)
{
	/* Should the test that started us be killed, we don't stay for ever. */
	signal(SIGALRM, power_off);
	alarm(MAX_LIFE_SECONDS);

	struct termios console;
	tcgetattr(STDIN_FILENO, &console);
	console.c_lflag &= ~ECHO;
	console.c_oflag &= ~OPOST;
	tcsetattr(STDIN_FILENO, TCSANOW, &console);
	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	set_up_network();
	say_gid();
	say("ready\n");

	char line[256], first[64];
	int port;
	while (fgets(line, sizeof line, stdin) != NULL) {
		if (sscanf(line, "ueid %63s", first) == 1)
			add_ueid(first);
		else if (sscanf(line, "listen %d", &port) == 1)
			listen_at(port);
		else if (sscanf(line, "connect %63s %d", first, &port) == 2)
			connect_to(first, port);
		else
			say("unknown %s", line);
	}
	power_off(0); /* nobody is there to talk to */
}
