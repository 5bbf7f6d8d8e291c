/* The simplest queue reader there is: accepts everything, one packet per call, on libnetfilter_queue.
 *
 * It is the yardstick for what NFQUEUE itself costs. It gets the same receive buffer and the same queue length as
 * sipalg, so that only the way of reading and answering differs. Its arguments are the queue's number, and "gso" to get
 * packets as the kernel has them: several segments in one, without their checksums. Prints "ready" once the queue is
 * bound; runs until it is killed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netlink.h>
#include <libnetfilter_queue/libnetfilter_queue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

static int accept_it(struct nfq_q_handle *queue, struct nfgenmsg *message, struct nfq_data *data, void *unused)
{
	struct nfqnl_msg_packet_hdr *header = nfq_get_msg_packet_hdr(data);

	(void)message;
	(void)unused;
	return header ? nfq_set_verdict(queue, ntohl(header->packet_id), NF_ACCEPT, 0, NULL) : 0;
}

int main(int count, char **arguments)
{
	static char buffer[0xffff + 4096] __attribute__((aligned(8)));
	int number = count > 1 ? atoi(arguments[1]) : 0;
	int size = 8 << 20, on = 1;
	struct nfq_handle *handle = nfq_open();
	struct nfq_q_handle *queue = handle ? nfq_create_queue(handle, number, accept_it, NULL) : NULL;

	if (!queue || nfq_set_mode(queue, NFQNL_COPY_PACKET, 0xffff) < 0 || nfq_set_queue_maxlen(queue, 4096) < 0) {
		perror("accept_all: queue");
		return 1;
	}
	if (count > 2 && !strcmp(arguments[2], "gso") && nfq_set_queue_flags(queue, NFQA_CFG_F_GSO, NFQA_CFG_F_GSO) < 0) {
		perror("accept_all: gso");
		return 1;
	}
	if (setsockopt(nfq_fd(handle), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0 ||
	    setsockopt(nfq_fd(handle), SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof on) < 0) {
		perror("accept_all: socket");
		return 1;
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		int length = recv(nfq_fd(handle), buffer, sizeof buffer, 0);

		if (length >= 0)
			nfq_handle_packet(handle, buffer, length);
		else if (errno != EINTR && errno != ENOBUFS) {
			perror("accept_all: recv");
			return 1;
		}
	}
}
