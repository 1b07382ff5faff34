"""``python -m lightning_steer chat``: a conversation at several strengths at once, in a terminal or on a page.

:class:`~lightning_steer.chat.session.Session` holds the conversation; the terminal and the page show it.
"""
