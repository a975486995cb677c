# Debian packages of the library and its programs, built by `cpack` in the build folder or by `sh cmake/deb.sh`.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME chatproto)
set(CPACK_PACKAGE_CONTACT "chatproto developers <chatproto@example.invalid>" CACHE STRING "Who maintains packages")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL dev)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

set(CPACK_DEBIAN_DEV_PACKAGE_NAME libchatproto-dev)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEV_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "libasio-dev (>= 1:1.22)")
set(CPACK_COMPONENT_DEV_DESCRIPTION "chat protocol and servers for C++20, header-only
 Rooms, senders and receivers on a line protocol, and servers whose threading
 is a template argument, on standalone Asio.")

if(TARGET server)
  list(APPEND CPACK_COMPONENTS_ALL tools)
  set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME chatproto-tools)
  set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION net)
  set(CPACK_DEBIAN_TOOLS_PACKAGE_SHLIBDEPS ON)
  set(CPACK_COMPONENT_TOOLS_DESCRIPTION "chat server, its clients, and a conformance suite
 A server of rooms, a program that talks and one that listens, and a program
 that plays the rules of the protocol against any server. systemd can run the
 server: systemctl enable --now chatproto-server")

  # The server as a service of systemd, under the paths of the package.
  set(packaging_dir ${PROJECT_SOURCE_DIR}/packaging)
  install(FILES ${packaging_dir}/systemd/chatproto-server.service ${packaging_dir}/systemd/chatproto-server.socket
    ${packaging_dir}/systemd/chatproto-server-tls.socket
    DESTINATION lib/systemd/system COMPONENT tools EXCLUDE_FROM_ALL)
  install(FILES ${packaging_dir}/systemd/chatproto-server.conf
    DESTINATION lib/sysusers.d COMPONENT tools EXCLUDE_FROM_ALL)
  install(FILES ${packaging_dir}/systemd/chatproto-server.tmpfiles RENAME chatproto-server.conf
    DESTINATION lib/tmpfiles.d COMPONENT tools EXCLUDE_FROM_ALL)
  install(FILES ${packaging_dir}/systemd/chatproto-server.default RENAME chatproto-server
    DESTINATION /etc/default COMPONENT tools EXCLUDE_FROM_ALL)
  set(CPACK_DEBIAN_TOOLS_PACKAGE_CONTROL_EXTRA conffiles postinst postrm prerm)
  list(TRANSFORM CPACK_DEBIAN_TOOLS_PACKAGE_CONTROL_EXTRA PREPEND ${packaging_dir}/debian/)
endif()

# Debian requires this of every package.
foreach(component IN LISTS CPACK_COMPONENTS_ALL)
  string(TOUPPER ${component} upper)
  install(FILES ${PROJECT_SOURCE_DIR}/LICENSE RENAME copyright
    DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${CPACK_DEBIAN_${upper}_PACKAGE_NAME}
    COMPONENT ${component} EXCLUDE_FROM_ALL)
endforeach()
include(CPack)
